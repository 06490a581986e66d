//! What a template is made of: `template.toml`, checked, and the digest that names the result.
//!
//! Owns: the format, its rules, the definitions inside the binary, the digest. Does no building.

use super::tables::{Debian, Go, Java, Node, Python, check_list};
use super::{TemplateError, go, java, node};
use crate::kernels;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Raised when the builder makes something else out of the same definition.
pub const BUILDER_VERSION: u32 = 1;
/// Longest slug.
pub(super) const SLUG_BYTES_MAX: usize = 40;
/// Longest version.
pub(super) const VERSION_BYTES_MAX: usize = 32;
/// Size of a template.toml.
pub(super) const DEFINITION_BYTES_MAX: u64 = 256 * 1024;
/// How many `from` may follow each other.
pub(super) const FROM_DEPTH_MAX: usize = 4;

/// The definitions inside the binary.
const EMBEDDED: [(&str, &str); 5] = [
    (
        "base",
        include_str!("../../../../templates/base/template.toml"),
    ),
    (
        "python",
        include_str!("../../../../templates/python/template.toml"),
    ),
    (
        "node",
        include_str!("../../../../templates/node/template.toml"),
    ),
    (
        "python-node",
        include_str!("../../../../templates/python-node/template.toml"),
    ),
    (
        "code-interpreter",
        include_str!("../../../../templates/code-interpreter/template.toml"),
    ),
];

/// One template.toml.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    pub slug: String,
    /// `YYYY-MM-DD` or `1.2.3`.
    pub version: String,
    pub description: String,
    /// Languages that code contexts can be started in.
    pub languages: Vec<String>,
    /// Slug of the template whose finished root this one starts from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Free space that the build asks for.
    pub disk_mb: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub debian: Option<Debian>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub python: Option<Python>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Node>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub java: Option<Java>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub go: Option<Go>,
}

impl Definition {
    /// The definition of that slug: from `directory/<slug>/template.toml` if it is there, else the
    /// one inside the binary.
    ///
    /// # Errors
    /// [`TemplateError::UnknownSlug`], [`TemplateError::Definition`]
    pub fn load(slug: &str, directory: Option<&Path>) -> Result<Self, TemplateError> {
        if !slug_ok(slug) {
            return Err(TemplateError::UnknownSlug(slug.to_owned()));
        }
        if let Some(path) = directory.map(|dir| dir.join(slug).join("template.toml"))
            && let Some(text) = read_bounded(&path)?
        {
            return Self::parse(slug, &text);
        }
        let embedded = EMBEDDED.iter().find(|(name, _)| *name == slug);
        let (_, text) = embedded.ok_or_else(|| TemplateError::UnknownSlug(slug.to_owned()))?;
        Self::parse(slug, text)
    }

    /// Every slug that [`Definition::load`] finds, sorted.
    #[must_use]
    pub fn slugs(directory: Option<&Path>) -> Vec<String> {
        let mut slugs: Vec<String> = EMBEDDED
            .iter()
            .map(|(slug, _)| (*slug).to_owned())
            .collect();
        let entries = directory.and_then(|dir| std::fs::read_dir(dir).ok());
        for entry in entries.into_iter().flatten().flatten() {
            let name = entry.file_name();
            if let Some(slug) = name.to_str().filter(|slug| slug_ok(slug))
                && entry.path().join("template.toml").is_file()
            {
                slugs.push(slug.to_owned());
            }
        }
        slugs.sort();
        slugs.dedup();
        slugs
    }

    /// Parses and checks; `slug` is the one that was asked for.
    ///
    /// # Errors
    /// [`TemplateError::Definition`]
    pub fn parse(slug: &str, text: &str) -> Result<Self, TemplateError> {
        let bad = |reason: String| TemplateError::Definition {
            slug: slug.to_owned(),
            reason,
        };
        let definition: Self = toml::from_str(text).map_err(|error| bad(error.to_string()))?;
        if definition.slug != slug {
            return Err(bad(format!("it says slug = {:?}", definition.slug)));
        }
        definition.check().map_err(bad)?;
        Ok(definition)
    }

    /// What the root depends on, as 64 hex digits. `base` is the digest of the template that this
    /// one starts from.
    #[must_use]
    pub fn digest(&self, base: Option<&str>) -> String {
        let mut hasher = blake3::Hasher::new_derive_key("crownest template definition v1");
        let canonical = serde_json::to_vec(self).expect("strings and numbers serialise");
        let builder = BUILDER_VERSION.to_string();
        let mut parts = vec![
            builder.as_bytes(),
            std::env::consts::ARCH.as_bytes(),
            base.unwrap_or("").as_bytes(),
            &canonical,
        ];
        // A template without these tables has the digest that it always had.
        for (name, bytes) in self.runtime_inputs() {
            parts.extend([name.as_bytes(), bytes]);
        }
        for part in parts {
            // Lengths first, so that no two different lists of parts read the same.
            hasher.update(&u64::try_from(part.len()).expect("fits").to_le_bytes());
            hasher.update(part);
        }
        hasher.finalize().to_hex().to_string()
    }

    /// What the runtimes of this definition depend on beside it: how they are installed, and the
    /// sources of drivers that a build turns into something in the root.
    fn runtime_inputs(&self) -> Vec<(&'static str, &'static [u8])> {
        let tables = [
            (self.node.is_some(), "node", node::BUILDER_VERSION),
            (self.java.is_some(), kernels::JAVA, java::BUILDER_VERSION),
            (self.go.is_some(), kernels::GO, go::BUILDER_VERSION),
        ];
        let mut inputs = Vec::new();
        for (_, kernel, builder) in tables.into_iter().filter(|(there, ..)| *there) {
            inputs.push((kernel, builder.as_bytes()));
            // Node runs its driver as it is.
            let built = |name: &str| kernel != "node" && kernels::is_of(name, kernel);
            inputs.extend(kernels::FILES.iter().filter(|(name, _)| built(name)));
        }
        inputs
    }

    fn check(&self) -> Result<(), String> {
        let version_ok = (1..=VERSION_BYTES_MAX).contains(&self.version.len())
            && self
                .version
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b".-+".contains(&b));
        if !version_ok {
            return Err(format!(
                "version {:?} is not YYYY-MM-DD or 1.2.3",
                self.version
            ));
        }
        if let Some(from) = &self.from
            && (!slug_ok(from) || *from == self.slug)
        {
            return Err(format!("from = {from:?} cannot be"));
        }
        if self.from.is_none() && self.debian.is_none() {
            return Err("neither `from` nor [debian]: there is nothing to start from".to_owned());
        }
        check_list("languages", &self.languages, slug_ok)?;
        self.debian.as_ref().map_or(Ok(()), Debian::check)?;
        self.python.as_ref().map_or(Ok(()), Python::check)?;
        self.node.as_ref().map_or(Ok(()), Node::check)?;
        self.java.as_ref().map_or(Ok(()), Java::check)?;
        self.go.as_ref().map_or(Ok(()), Go::check)?;
        Ok(())
    }
}

fn read_bounded(path: &Path) -> Result<Option<String>, TemplateError> {
    use std::io::Read;
    let error = |source| TemplateError::Read {
        path: path.to_owned(),
        source,
    };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(error(source)),
    };
    let mut text = String::new();
    let read = file
        .take(DEFINITION_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(error)?;
    if u64::try_from(read).expect("fits") > DEFINITION_BYTES_MAX {
        return Err(TemplateError::Definition {
            slug: path.display().to_string(),
            reason: format!("larger than {DEFINITION_BYTES_MAX} bytes"),
        });
    }
    Ok(Some(text))
}

/// Whether a string can be a slug: a directory name that needs no escaping anywhere.
#[must_use]
pub fn slug_ok(slug: &str) -> bool {
    let letters_ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=SLUG_BYTES_MAX).contains(&slug.len())
        && slug.bytes().all(letters_ok)
        && !slug.starts_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "slug='x'\nversion='1.0.0'\ndescription=''\nlanguages=[]\ndisk_mb=1\n\
                         [debian]\nsuite='bookworm'\npackages=['git']\n";

    #[test]
    fn every_embedded_definition_is_valid_and_starts_from_one_that_exists() {
        for (slug, _) in EMBEDDED {
            let definition = Definition::load(slug, None).unwrap();
            if let Some(from) = &definition.from {
                Definition::load(from, None).unwrap();
            }
        }
    }

    #[test]
    fn the_digest_changes_with_every_input_and_with_nothing_else() {
        let plain = Definition::parse("x", SMALL).unwrap();
        let commented = Definition::parse("x", &format!("# why\n{SMALL}")).unwrap();
        assert_eq!(plain.digest(None), commented.digest(None));
        assert_eq!(plain.digest(None).len(), 64);
        let version = Definition::parse("x", &SMALL.replace("1.0.0", "1.0.1")).unwrap();
        let package = Definition::parse("x", &SMALL.replace("'git'", "'git','jq'")).unwrap();
        let digests = [
            plain.digest(None),
            plain.digest(Some("ab")),
            version.digest(None),
            package.digest(None),
        ];
        for (i, one) in digests.iter().enumerate() {
            assert!(!digests[i + 1..].contains(one), "{i}");
        }
    }

    #[test]
    fn hostile_definitions_are_refused_with_the_entry_that_is_wrong() {
        let with = |from: &str, to: &str| SMALL.replace(from, to);
        let python =
            |list: &str| format!("{SMALL}[python]\npackages={list}\nconstraints=[]\npreload=[]\n");
        let cases = [
            (with("'git'", "'--mirror=http://x'"), "--mirror"),
            (with("'git'", "'git; reboot'"), "reboot"),
            (with("'git'", "'a,b'"), "a,b"),
            (with("slug='x'", "slug='y'"), "slug"),
            (with("1.0.0", "../1"), "../1"),
            (with("bookworm", "sid"), "sid"),
            (with("languages=[]", "languages=['../x']"), "../x"),
            (with("disk_mb=1", "disk_mb=1\nfrom='x'"), "from"),
            (with("disk_mb=1", "disk_mb=-1"), "disk_mb"),
            (with("disk_mb=1", "disk_mb=1\nshell='rm'"), "shell"),
            (python("['numpy']"), "numpy"),
            (python("['pip==1','numpy>=1']"), "numpy>=1"),
            (python("['pip==1','--index-url==x']"), "--index-url"),
            (python("['numpy==2.0']"), "pip"),
            (
                format!("{SMALL}[python]\npackages=['pip==1']\nconstraints=[]\npreload=['os;x']\n"),
                "os;x",
            ),
        ];
        for (text, expected) in cases {
            let error = Definition::parse("x", &text).unwrap_err().to_string();
            assert!(error.contains(expected), "{expected}: {error}");
        }
    }

    #[test]
    fn a_users_definition_comes_before_the_embedded_one() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("base");
        std::fs::create_dir(&own).unwrap();
        std::fs::write(
            own.join("template.toml"),
            SMALL.replace("slug='x'", "slug='base'"),
        )
        .unwrap();
        assert_eq!(
            Definition::load("base", Some(dir.path())).unwrap().version,
            "1.0.0"
        );
        assert_eq!(
            Definition::slugs(Some(dir.path())),
            ["base", "code-interpreter", "node", "python", "python-node"]
        );
        assert!(Definition::load("../base", Some(dir.path())).is_err());
        assert!(Definition::load("nosuch", Some(dir.path())).is_err());
    }
}
