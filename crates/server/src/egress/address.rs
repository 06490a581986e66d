//! Which addresses are not the public internet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses under which clouds hand out credentials.
const METADATA_V4: [Ipv4Addr; 2] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(100, 100, 100, 200),
];
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// IPv4 ranges that are refused: network, prefix length, what it is. RFC 6890 and successors.
/// The documentation ranges are not among them: nothing answers there.
const RANGES_V4: [(Ipv4Addr, u32, &str); 14] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8, "an unspecified address"),
    (Ipv4Addr::new(127, 0, 0, 0), 8, "a loopback address"),
    (Ipv4Addr::new(10, 0, 0, 0), 8, "a private address"),
    (Ipv4Addr::new(172, 16, 0, 0), 12, "a private address"),
    (Ipv4Addr::new(192, 168, 0, 0), 16, "a private address"),
    (
        Ipv4Addr::new(100, 64, 0, 0),
        10,
        "a carrier's shared address",
    ),
    (Ipv4Addr::new(169, 254, 0, 0), 16, "a link-local address"),
    (Ipv4Addr::new(192, 0, 0, 0), 24, "a reserved address"),
    (Ipv4Addr::new(192, 88, 99, 0), 24, "a reserved address"),
    (Ipv4Addr::new(198, 18, 0, 0), 15, "a benchmarking address"),
    (Ipv4Addr::new(224, 0, 0, 0), 4, "a multicast address"),
    (
        Ipv4Addr::new(255, 255, 255, 255),
        32,
        "the broadcast address",
    ),
    (Ipv4Addr::new(240, 0, 0, 0), 4, "a reserved address"),
    (Ipv4Addr::new(192, 31, 196, 0), 24, "a reserved address"),
];

/// IPv6 ranges that are refused as a whole. What is not global unicast (2000::/3) is refused in
/// any case; the ranges named here get a better word for it.
const RANGES_V6: [(Ipv6Addr, u32, &str); 9] = [
    (Ipv6Addr::UNSPECIFIED, 128, "an unspecified address"),
    (Ipv6Addr::LOCALHOST, 128, "a loopback address"),
    (
        Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0),
        7,
        "a private address",
    ),
    (
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0),
        10,
        "a link-local address",
    ),
    (
        Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0),
        10,
        "a private address",
    ),
    (
        Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0),
        8,
        "a multicast address",
    ),
    (
        Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0),
        48,
        "a local translation address",
    ),
    (
        Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0),
        32,
        "a Teredo address",
    ),
    (
        Ipv6Addr::new(0x2001, 0x10, 0, 0, 0, 0, 0, 0),
        28,
        "a reserved address",
    ),
];

/// Why an address must not be reached, in words; `None` when it is public.
#[must_use]
pub fn forbidden_range(ip: IpAddr) -> Option<&'static str> {
    match ip {
        IpAddr::V4(ip) => forbidden_v4(ip),
        IpAddr::V6(ip) => forbidden_v6(ip),
    }
}

fn forbidden_v4(ip: Ipv4Addr) -> Option<&'static str> {
    if METADATA_V4.contains(&ip) {
        return Some("a cloud metadata address");
    }
    let bits = ip.to_bits();
    RANGES_V4
        .iter()
        .find(|(network, prefix, _)| (bits ^ network.to_bits()) >> (32 - prefix) == 0)
        .map(|(.., what)| *what)
}

fn forbidden_v6(ip: Ipv6Addr) -> Option<&'static str> {
    if ip == METADATA_V6 {
        return Some("a cloud metadata address");
    }
    let bits = ip.to_bits();
    let named = RANGES_V6
        .iter()
        .find(|(network, prefix, _)| (bits ^ network.to_bits()) >> (128 - prefix) == 0)
        .map(|(.., what)| *what);
    if named.is_some() {
        return named;
    }
    if let Some(inner) = embedded_v4(ip) {
        return forbidden_v4(inner);
    }
    (bits >> 125 != 0b001).then_some("a reserved address")
}

/// The IPv4 address that a translating form of IPv6 leads to: mapped, NAT64, 6to4.
pub(super) fn embedded_v4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = ip.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from_bits((u32::from(high) << 16) | u32::from(low));
    match (a, b, c, d, e, f) {
        (0, 0, 0, 0, 0, 0xffff) | (0x64, 0xff9b, 0, 0, 0, 0) => Some(v4(g, h)),
        (0x2002, ..) => Some(v4(b, c)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{ProptestConfig, any, proptest};

    fn why(ip: &str) -> Option<&'static str> {
        forbidden_range(ip.parse().unwrap())
    }

    #[test]
    fn table() {
        for (ip, expected) in [
            ("0.0.0.0", Some("an unspecified address")),
            ("0.1.2.3", Some("an unspecified address")),
            ("127.0.0.1", Some("a loopback address")),
            ("127.255.255.254", Some("a loopback address")),
            ("10.0.0.5", Some("a private address")),
            ("172.15.255.255", None),
            ("172.16.0.1", Some("a private address")),
            ("172.31.255.255", Some("a private address")),
            ("172.32.0.0", None),
            ("192.168.1.1", Some("a private address")),
            ("192.167.1.1", None),
            ("100.63.255.255", None),
            ("100.64.0.1", Some("a carrier's shared address")),
            ("100.127.255.255", Some("a carrier's shared address")),
            ("100.128.0.0", None),
            ("100.100.100.200", Some("a cloud metadata address")),
            ("169.254.169.254", Some("a cloud metadata address")),
            ("169.254.1.1", Some("a link-local address")),
            ("224.0.0.1", Some("a multicast address")),
            ("239.255.255.255", Some("a multicast address")),
            ("240.0.0.1", Some("a reserved address")),
            ("255.255.255.255", Some("the broadcast address")),
            ("198.18.0.1", Some("a benchmarking address")),
            ("192.0.0.170", Some("a reserved address")),
            ("192.0.2.1", None),
            ("198.51.100.7", None),
            ("203.0.113.9", None),
            ("1.1.1.1", None),
            ("223.255.255.255", None),
            ("::", Some("an unspecified address")),
            ("::1", Some("a loopback address")),
            ("::7f00:1", Some("a reserved address")),
            ("::ffff:127.0.0.1", Some("a loopback address")),
            ("::ffff:169.254.169.254", Some("a cloud metadata address")),
            ("::ffff:1.1.1.1", None),
            ("64:ff9b::10.0.0.1", Some("a private address")),
            ("64:ff9b::8.8.8.8", None),
            ("64:ff9b:1::8.8.8.8", Some("a local translation address")),
            ("2002:7f00:1::", Some("a loopback address")),
            ("2002:a00:5::1", Some("a private address")),
            ("2002:808:808::1", None),
            ("2001:0:1:2::3", Some("a Teredo address")),
            ("fc00::1", Some("a private address")),
            ("fd00:ec2::254", Some("a cloud metadata address")),
            ("fd12:3456::1", Some("a private address")),
            ("fe80::1", Some("a link-local address")),
            ("fec0::1", Some("a private address")),
            ("ff02::1", Some("a multicast address")),
            ("100::1", Some("a reserved address")),
            ("4000::1", Some("a reserved address")),
            ("2606:4700::1111", None),
            ("2001:db8::1", None),
        ] {
            assert_eq!(why(ip), expected, "{ip}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// No way of writing an IPv4 address as IPv6 opens what the address itself does not.
        #[test]
        fn translated_forms_are_judged_like_the_address(bits in any::<u32>()) {
            let v4 = Ipv4Addr::from_bits(bits);
            let expected = forbidden_range(v4.into());
            let low = u128::from(bits);
            let nat64 = (0x64_u128 << 112) | (0xff9b_u128 << 96) | low;
            let six_to_four = (0x2002_u128 << 112) | (low << 80);
            for form in [v4.to_ipv6_mapped().to_bits(), nat64, six_to_four] {
                let form = Ipv6Addr::from_bits(form);
                assert_eq!(forbidden_range(form.into()), expected, "{form}");
            }
        }

        /// The standard library's own notion of these classes is a lower bound for ours.
        #[test]
        fn nothing_that_std_calls_internal_passes(bits in any::<u32>(), low in any::<u128>()) {
            let v4 = Ipv4Addr::from_bits(bits);
            if v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_multicast()
                || v4.is_broadcast() || v4.is_unspecified()
            {
                assert!(forbidden_range(v4.into()).is_some(), "{v4}");
            }
            let v6 = Ipv6Addr::from_bits(low);
            if v6.is_loopback() || v6.is_multicast() || v6.is_unspecified()
                || v6.is_unique_local() || v6.is_unicast_link_local()
            {
                assert!(forbidden_range(v6.into()).is_some(), "{v6}");
            }
        }
    }
}
