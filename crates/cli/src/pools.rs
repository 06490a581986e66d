//! Which template is meant when nobody says one, and which sandboxes are kept ready.

use crate::options::ServeOptions;
use anyhow::{Context, bail};
use crownest_server::host::{self, KERNELS, Kernel, Network, PoolConfig, PoolTemplate};
use crownest_server::{Template, runtimes_of};

/// Templates of sandboxes that name none, the one that is wanted most first.
const USUAL_TEMPLATES: [&str; 2] = ["python-node", "python"];
/// Templates with a pool.
const POOLS_MAX: usize = 32;

/// The template of sandboxes that name none: the configured one, else the best that is built.
pub(crate) fn default_template(options: &ServeOptions, built: &[Template]) -> String {
    let there = |slug: &&str| built.iter().any(|t| t.current && t.slug == **slug);
    let [.., last] = USUAL_TEMPLATES;
    match &options.default_template {
        Some(slug) => slug.clone(),
        None => USUAL_TEMPLATES
            .into_iter()
            .find(there)
            .unwrap_or(last)
            .to_owned(),
    }
}

/// What the pool keeps: sandboxes with the default limits, of the default template and of those
/// that `--pool-templates` names.
///
/// # Errors
/// When an entry cannot be read, or names a language that there is not.
pub(crate) fn pool(options: &ServeOptions, built: &[Template]) -> anyhow::Result<PoolConfig> {
    let mut wishes = vec![Wish {
        slug: default_template(options, built),
        size: options.pool,
        kernels: None,
    }];
    for text in &options.pool_templates {
        let wish = Wish::parse(text).with_context(|| format!("--pool-templates {text}"))?;
        wishes.retain(|known| known.slug != wish.slug);
        wishes.push(wish);
    }
    if wishes.len() > POOLS_MAX {
        bail!("--pool-templates: at most {POOLS_MAX}");
    }
    let mut templates = Vec::new();
    for wish in wishes.into_iter().filter(|wish| wish.size > 0) {
        let slug = &wish.slug;
        let Some(template) = built.iter().find(|t| t.current && t.slug == *slug) else {
            tracing::warn!(
                "template {slug} is not built; build it with: crownest template build {slug}"
            );
            continue;
        };
        templates.push(wish.entry(template, options)?);
    }
    Ok(PoolConfig {
        templates,
        refill_per_second: options.pool_refill_per_second,
        memory_available_bytes_min: options.pool_memory_mib_min * 1024 * 1024,
        ..PoolConfig::default()
    })
}

/// One entry of the configuration.
#[derive(Debug, PartialEq, Eq)]
struct Wish {
    slug: String,
    size: usize,
    /// None: those that are worth it.
    kernels: Option<Vec<&'static Kernel>>,
}

impl Wish {
    /// `slug=size` or `slug=size:language+language`.
    fn parse(text: &str) -> anyhow::Result<Self> {
        let (slug, rest) = text
            .split_once('=')
            .context("an entry is TEMPLATE=SIZE or TEMPLATE=SIZE:LANGUAGE+LANGUAGE")?;
        let (size, languages) = match rest.split_once(':') {
            None => (rest, None),
            Some((size, languages)) => (size, Some(languages)),
        };
        let kernels = languages.map(|languages| {
            languages
                .split('+')
                .filter(|word| !word.is_empty())
                .map(|word| {
                    host::language(word)
                        .and_then(Kernel::of)
                        .with_context(|| format!("there is no language {word:?}"))
                })
                .collect::<anyhow::Result<Vec<_>>>()
        });
        Ok(Self {
            slug: slug.trim().to_owned(),
            size: size.trim().parse().context("the size is no number")?,
            kernels: kernels.transpose()?,
        })
    }

    fn entry(&self, template: &Template, options: &ServeOptions) -> anyhow::Result<PoolTemplate> {
        let has = |kernel: &Kernel| {
            let mut languages = template.languages.iter();
            languages.any(|language| kernel.languages.contains(&language.as_str()))
        };
        let usual = || KERNELS.iter().filter(|k| k.prestarted && has(k)).collect();
        let mut drivers: Vec<&'static Kernel> = self.kernels.clone().unwrap_or_else(usual);
        if let Some(kernel) = drivers.iter().find(|kernel| !has(kernel)) {
            bail!("template {} has no {}", self.slug, kernel.name);
        }
        // What takes least is there first.
        drivers.sort_by_key(|kernel| kernel.idle_bytes);
        drivers.dedup();
        Ok(PoolTemplate {
            template: template.reference(),
            size: self.size,
            limits: options.limits()?,
            network: Network::Proxy,
            runtimes: runtimes_of(template),
            drivers,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(wish: &Wish) -> Vec<&str> {
        let kernels = wish.kernels.as_deref().unwrap_or_default();
        kernels.iter().map(|kernel| kernel.name).collect()
    }

    #[test]
    fn entries_say_how_many_and_of_which_languages() {
        let wish = Wish::parse("code-interpreter=2:python+js+java").unwrap();
        assert_eq!((wish.slug.as_str(), wish.size), ("code-interpreter", 2));
        assert_eq!(names(&wish), ["python", "node", "java"]);
        assert_eq!(Wish::parse("node=4").unwrap().kernels, None);
        assert_eq!(Wish::parse("node=4:").unwrap().kernels, Some(Vec::new()));
        for bad in ["node", "node=", "node=-1", "node=1:cobol", "=x"] {
            assert!(Wish::parse(bad).is_err(), "{bad}");
        }
    }
}
