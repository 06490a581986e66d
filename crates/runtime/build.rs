//! Builds `crownest-init` and the driver of the shell as static programs and lists the kernel
//! drivers, so that one binary carries everything a sandbox needs.
//!
//! They are built by a cargo of their own, with its own target directory and flags: they must be
//! static (there is no loader to trust inside a sandbox) and small, whatever profile this is.
//! With musl, whose start takes 0.1 ms: glibc asks for the processor's features some thirty times
//! before main, and under a hypervisor every `cpuid` is an exit (0.5 ms of each create, measured).

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a driver consists of, or is built of inside a template.
const KERNEL_FILES: [&str; 11] = [
    ".py", ".mjs", ".cjs", ".js", ".sh", ".json", ".txt", ".java", ".go", "go.mod", "go.sum",
];
/// Directories that are no part of a driver.
const NOT_KERNELS: [&str; 6] = [
    "__pycache__",
    "conformance",
    "node_modules",
    "target",
    "test",
    "tests",
];

fn main() {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("set by cargo")).join("../..");
    let root = root.canonicalize().expect("the workspace is two levels up");
    let out = PathBuf::from(env::var("OUT_DIR").expect("set by cargo"));
    let programs = build_static(&root, &out);
    for (variable, name) in [
        ("CROWNEST_INIT_BINARY", "crownest-init"),
        ("CROWNEST_BASH_BINARY", "crownest-bash"),
    ] {
        let path = programs.join(name);
        println!("cargo::rustc-env={variable}={}", path.display());
    }
    fs::write(out.join("kernels.rs"), list_kernels(&root.join("kernels")))
        .expect("OUT_DIR is ours");
}

/// Returns the directory of the programs.
fn build_static(root: &Path, out: &Path) -> PathBuf {
    let target = static_target();
    for source in [
        "crates/init/src",
        "crates/init/Cargo.toml",
        "kernels/bash/src",
        "kernels/bash/Cargo.toml",
    ] {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
    }
    let target_dir = out.join("init");
    let mut cargo = Command::new(env::var("CARGO").expect("set by cargo"));
    // What this build was told about itself must not reach the other one.
    for (name, _) in env::vars() {
        if name.starts_with("CARGO_") && name != "CARGO_HOME"
            || name == "RUSTC_WRAPPER"
            || name == "RUSTC_WORKSPACE_WRAPPER"
        {
            cargo.env_remove(name);
        }
    }
    let status = cargo
        .current_dir(root)
        .args([
            "build",
            "--locked",
            "--quiet",
            "-p",
            "crownest-init",
            "-p",
            "crownest-bash",
            "--bins",
        ])
        .args(["--profile", "init", "--target", target, "--target-dir"])
        .arg(&target_dir)
        .env(
            "RUSTFLAGS",
            "-C target-feature=+crt-static -C relocation-model=static",
        )
        .status()
        .expect("cargo can be started");
    assert!(
        status.success(),
        "building crownest-init and crownest-bash failed"
    );
    target_dir.join(target).join("init")
}

/// musl where the toolchain has it (`make install-deps` adds it), else glibc.
fn static_target() -> &'static str {
    const PREFERRED: &str = "x86_64-unknown-linux-musl";
    let rustc = env::var("RUSTC").expect("set by cargo");
    let libraries = Command::new(rustc)
        .args(["--print", "target-libdir", "--target", PREFERRED])
        .output()
        .expect("rustc can be started")
        .stdout;
    let libraries = String::from_utf8_lossy(&libraries);
    if Path::new(libraries.trim()).is_dir() {
        return PREFERRED;
    }
    println!("cargo::warning=no {PREFERRED}: sandboxes start 0.5 ms later (rustup target add)");
    "x86_64-unknown-linux-gnu"
}

/// `&[("python/driver.py", include_bytes!(…)), …]`
fn list_kernels(kernels: &Path) -> String {
    let mut files = Vec::new();
    collect(kernels, &mut files);
    files.sort();
    let mut text = String::from("&[\n");
    for file in files {
        let name = file
            .strip_prefix(kernels)
            .expect("found below it")
            .display()
            .to_string();
        writeln!(
            text,
            "    ({name:?}, include_bytes!({:?})),",
            file.display().to_string()
        )
        .expect("writing to a String");
    }
    text.push(']');
    text
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    println!("cargo::rerun-if-changed={}", dir.display());
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if path.is_dir() {
            if !NOT_KERNELS.contains(&&*name) && !name.starts_with('.') {
                collect(&path, files);
            }
        } else if KERNEL_FILES.iter().any(|end| name.ends_with(end)) && !name.ends_with("_test.go")
        {
            files.push(path);
        }
    }
}
