//! A private PostgreSQL server: in a temporary directory, reached by a unix socket only, and
//! gone when the test process is gone, however that ends.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Runs the server until its standard input ends, which the end of this process brings about.
/// `$0` is the directory of the programs, `$1` the server's own.
const SCRIPT: &str = r#"
cd "$1" || exit 1
trap '"$0/pg_ctl" -D data -m immediate stop; rm -rf "$1"' EXIT
"$0/initdb" -D data -U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync >initdb.log 2>&1 &&
"$0/pg_ctl" -D data -w -l server.log start -o "-k '$1' -c listen_addresses= -c fsync=off \
-c max_connections=400" >start.log 2>&1 || { cat initdb.log start.log server.log >&2; exit 1; }
echo ready
cat
"#;

struct Server {
    socket_directory: PathBuf,
    /// Its standard input stays open as long as this process lives.
    _script: Child,
}

/// The URL of an empty database, `None` when PostgreSQL is not installed.
pub(crate) fn fresh_database() -> Option<String> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let server = SERVER.get_or_init(start).as_ref()?;
    let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    crate::bed::runtime().block_on(async {
        let mut connection =
            <sqlx::PgConnection as sqlx::Connection>::connect(&server.url("postgres"))
                .await
                .unwrap();
        let sql = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    });
    Some(server.url(&name))
}

impl Server {
    fn url(&self, database: &str) -> String {
        format!(
            "postgres:///{database}?user=postgres&host={}",
            self.socket_directory.display()
        )
    }
}

fn start() -> Option<Server> {
    let programs = programs()?;
    // Short, because the path of a socket is: and not removed by this process, but by the script.
    let directory = tempfile::Builder::new()
        .prefix("cn-pg-")
        .tempdir_in("/tmp")
        .unwrap()
        .keep();
    let mut command = Command::new("sh");
    command.arg("-c").arg(SCRIPT).arg(&programs).arg(&directory);
    if number("id", &["-u"]) == Some(0) {
        // The server refuses to run as root.
        let uid = number("id", &["-u", "postgres"]).expect("the package makes this user");
        let gid = number("id", &["-g", "postgres"]).expect("the package makes this group");
        std::os::unix::fs::chown(&directory, Some(uid), Some(gid)).unwrap();
        command.uid(uid).gid(gid);
    }
    let mut script = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(script.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "ready\n", "the PostgreSQL server did not start");
    Some(Server {
        socket_directory: directory,
        _script: script,
    })
}

/// Where the newest installed server's programs are.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let directories = versions.filter_map(|entry| Some(entry.ok()?.path().join("bin")));
    let version =
        |path: &Path| -> Option<u32> { path.parent()?.file_name()?.to_str()?.parse().ok() };
    directories
        .filter(|path| path.join("postgres").is_file() && path.join("initdb").is_file())
        .max_by_key(|path| version(path))
}

fn number(program: &str, arguments: &[&str]) -> Option<u32> {
    let output = Command::new(program).args(arguments).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}
