//! Sizes as Kubernetes writes them: `"500m"`, `"2Gi"`. Pure.

use crate::error::{ApiError, ApiResult};
use crownest_api::sandbox::Resources;
use std::collections::BTreeMap;

/// Longest quantity that is looked at.
const QUANTITY_BYTES_MAX: usize = 32;
/// Suffixes and what they multiply by, in thousandths.
const SUFFIXES: [(&str, u128); 12] = [
    ("Ki", 1_000 << 10),
    ("Mi", 1_000 << 20),
    ("Gi", 1_000 << 30),
    ("Ti", 1_000 << 40),
    ("Pi", 1_000 << 50),
    ("k", 1_000_000),
    ("M", 1_000_000_000),
    ("G", 1_000_000_000_000),
    ("T", 1_000_000_000_000_000),
    ("P", 1_000_000_000_000_000_000),
    ("m", 1),
    ("", 1_000),
];

/// What a sandbox asks for. Whether it may have that, its creation decides.
pub(super) fn limits(asked: &BTreeMap<String, String>) -> ApiResult<Resources> {
    let mut resources = Resources::default();
    for (name, text) in asked {
        let refuse = |why: &str| ApiError::field("resourceLimits", format!("{name}: {why}"));
        let thousandths =
            thousandths(text).ok_or_else(|| refuse("it is not a quantity such as 500m or 2Gi"))?;
        let too_large = |_| refuse("it is too large");
        let whole = thousandths.div_ceil(1_000);
        match name.as_str() {
            "cpu" => {
                resources.cpu_millis = Some(u32::try_from(thousandths).map_err(too_large)?);
            }
            "memory" => {
                resources.memory_bytes = Some(u64::try_from(whole).map_err(too_large)?);
            }
            "disk" | "ephemeral-storage" => {
                resources.disk_bytes = Some(u64::try_from(whole).map_err(too_large)?);
            }
            "pids" => resources.pids = Some(u32::try_from(whole).map_err(too_large)?),
            // None of it is what there is.
            "gpu" if thousandths == 0 => {}
            _ => {
                return Err(refuse(
                    "there is no such resource here; there are cpu, memory, disk and pids",
                ));
            }
        }
    }
    Ok(resources)
}

/// A quantity in thousandths of its unit, rounded up.
fn thousandths(text: &str) -> Option<u128> {
    let text = text.trim();
    if text.len() > QUANTITY_BYTES_MAX {
        return None;
    }
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.'));
    let (digits, suffix) = text.split_at(end.unwrap_or(text.len()));
    number(digits, suffix)
}

fn number(digits: &str, suffix: &str) -> Option<u128> {
    let (_, factor) = SUFFIXES.iter().find(|(name, _)| *name == suffix)?;
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && part.is_empty() {
        return None;
    }
    let scale = 10_u128.checked_pow(u32::try_from(part.len()).ok()?)?;
    let value: u128 = format!("{whole}{part}").parse().ok()?;
    Some(value.checked_mul(*factor)?.div_ceil(scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(name: &str, text: &str) -> ApiResult<Resources> {
        limits(&BTreeMap::from([(name.to_owned(), text.to_owned())]))
    }

    #[test]
    fn quantities_are_those_of_kubernetes() {
        for (text, millis) in [
            ("1", 1_000),
            ("500m", 500),
            ("0.5", 500),
            ("2", 2_000),
            (".25", 250),
            ("1.0001", 1_001),
        ] {
            assert_eq!(
                asked("cpu", text).unwrap().cpu_millis,
                Some(millis),
                "{text}"
            );
        }
        for (text, bytes) in [
            ("2Gi", 2 << 30),
            ("512Mi", 512 << 20),
            ("1G", 1_000_000_000),
            ("1.5Gi", 3 << 29),
            ("1048576", 1 << 20),
            ("100k", 100_000),
            ("1500m", 2),
        ] {
            assert_eq!(
                asked("memory", text).unwrap().memory_bytes,
                Some(bytes),
                "{text}"
            );
        }
        assert_eq!(
            asked("ephemeral-storage", "1Gi").unwrap().disk_bytes,
            Some(1 << 30)
        );
        assert!(asked("gpu", "0").is_ok());
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in [
            "",
            "x",
            "-1",
            "1x",
            "1 Gi",
            "Gi",
            ".",
            "1..2",
            "9e9",
            "99999999999999999999999999999999",
        ] {
            assert!(asked("cpu", text).is_err(), "{text}");
        }
        assert!(asked("cpu", "99999999999").is_err());
        assert!(asked("memory", "99999999Pi").is_err());
        assert!(asked("gpu", "1").is_err());
    }
}
