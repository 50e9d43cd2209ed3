//! Addresses that a callback never calls: a timer's URL comes from a client, and must not reach what only this machine can.
//!
//! The check is made on the very address that is connected to, after names have been resolved, so that no way to write
//! a host and no answer of a name server gets around it. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The address is one that callbacks never call. It does not say which: the name of a host would tell what it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("blocked address: it is not public, and no --callback-allow opens it")]
pub struct Blocked;

/// Refuses what is not publicly routable, unless `allow` contains it; what serves credentials to a machine is refused
/// in any case.
///
/// An IPv6 address that stands for an IPv4 one must pass as both.
pub fn check(address: IpAddr, allow: &[IpNet]) -> Result<(), Blocked> {
    let mut faces = vec![address.to_canonical()];
    if let IpAddr::V6(v6) = address {
        faces.extend(embedded(v6).into_iter().flatten().map(IpAddr::V4));
    }
    let passes = |face: &IpAddr| !is_never(*face) && (!is_denied(*face) || allow.iter().any(|net| net.contains(face)));
    if faces.iter().all(passes) { Ok(()) } else { Err(Blocked) }
}

/// Refused even where a range that contains them is allowed: link-local, and what the clouds serve credentials and
/// set-up data under.
fn is_never(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => NEVER_V4.iter().any(|net| net.contains(&v4)),
        IpAddr::V6(v6) => NEVER_V6.iter().any(|net| net.contains(&v6)),
    }
}

fn is_denied(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => DENIED_V4.iter().any(|net| net.contains(&v4)),
        IpAddr::V6(v6) => DENIED_V6.iter().any(|net| net.contains(&v6)),
    }
}

/// The IPv4 addresses that this one leads to: mapped, compatible, translated, NAT64, 6to4, and Teredo's server and client.
fn embedded(v6: Ipv6Addr) -> [Option<Ipv4Addr>; 2] {
    let [_, _, b2, b3, b4, b5, b6, b7, _, b9, b10, _, b12, b13, b14, b15] = v6.octets();
    let last = Ipv4Addr::new(b12, b13, b14, b15);
    if v6.is_unspecified() || v6.is_loopback() {
        return [None, None];
    }
    if [MAPPED, COMPATIBLE, TRANSLATED, NAT64].iter().any(|net| net.contains(&v6)) {
        [Some(last), None]
    } else if NAT64_LOCAL.contains(&v6) {
        // The prefix may be 48 or 96 bits long: RFC 6052 puts the address behind it, around the ninth byte.
        [Some(last), Some(Ipv4Addr::new(b6, b7, b9, b10))]
    } else if SIX_TO_FOUR.contains(&v6) {
        [Some(Ipv4Addr::new(b2, b3, b4, b5)), None]
    } else if TEREDO.contains(&v6) {
        [Some(Ipv4Addr::new(b4, b5, b6, b7)), Some(Ipv4Addr::new(!b12, !b13, !b14, !b15))]
    } else {
        [None, None]
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, bits: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), bits)
}

const fn v6(a: u16, b: u16, c: u16, h: u16, bits: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, h), bits)
}

const MAPPED: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96);
const COMPATIBLE: Ipv6Net = v6(0, 0, 0, 0, 96);
/// RFC 2765, ahead of NAT64: `::ffff:0:a.b.c.d`.
const TRANSLATED: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, 0, 0), 96);
const NAT64: Ipv6Net = v6(0x64, 0xff9b, 0, 0, 96);
const NAT64_LOCAL: Ipv6Net = v6(0x64, 0xff9b, 1, 0, 48);
const SIX_TO_FOUR: Ipv6Net = v6(0x2002, 0, 0, 0, 16);
const TEREDO: Ipv6Net = v6(0x2001, 0, 0, 0, 32);

const NEVER_V4: [Ipv4Net; 4] = [
    // Link-local, with the metadata services of most clouds (169.254.169.254, 169.254.170.2).
    v4(169, 254, 0, 0, 16),
    // Metadata of Alibaba, Azure's host and Oracle.
    v4(100, 100, 100, 200, 32),
    v4(168, 63, 129, 16, 32),
    v4(192, 0, 0, 192, 32),
];

const NEVER_V6: [Ipv6Net; 4] = [
    v6(0xfe80, 0, 0, 0, 10),
    // What AWS has beside a machine: metadata, and the credentials of pods. Metadata of Google and Scaleway.
    v6(0xfd00, 0xec2, 0, 0, 32),
    v6(0xfd20, 0xce, 0, 0x254, 128),
    v6(0xfd00, 0x42, 0, 0x42, 128),
];

/// IANA's special-purpose registry, without what is globally reachable.
const DENIED_V4: [Ipv4Net; 14] = [
    v4(0, 0, 0, 0, 8),
    v4(10, 0, 0, 0, 8),
    v4(100, 64, 0, 0, 10),
    v4(127, 0, 0, 0, 8),
    v4(172, 16, 0, 0, 12),
    v4(192, 0, 0, 0, 24),
    v4(192, 0, 2, 0, 24),
    v4(192, 88, 99, 0, 24),
    v4(192, 168, 0, 0, 16),
    v4(198, 18, 0, 0, 15),
    v4(198, 51, 100, 0, 24),
    v4(203, 0, 113, 0, 24),
    v4(224, 0, 0, 0, 4),
    v4(240, 0, 0, 0, 4),
];

const DENIED_V6: [Ipv6Net; 12] = [
    v6(0, 0, 0, 0, 128),
    v6(0, 0, 0, 1, 128),
    // Locally meant translation; the well-known prefix is judged by what it leads to.
    NAT64_LOCAL,
    v6(0x100, 0, 0, 0, 64),
    Ipv6Net::new_assert(Ipv6Addr::new(0x100, 0, 0, 1, 0, 0, 0, 0), 64),
    v6(0x2001, 0, 0, 0, 23),
    v6(0x2001, 0xdb8, 0, 0, 32),
    v6(0x3fff, 0, 0, 0, 20),
    v6(0x5f00, 0, 0, 0, 16),
    v6(0xfc00, 0, 0, 0, 7),
    v6(0xfec0, 0, 0, 0, 10),
    v6(0xff00, 0, 0, 0, 8),
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use url::{Host, Url};

    /// Whether the address that this host is written as may be called.
    fn allowed(host: &str, allow: &[&str]) -> bool {
        let allow: Vec<IpNet> = allow.iter().map(|net| net.parse().expect("a range")).collect();
        let url = Url::parse(&format!("http://{host}/")).expect("a URL");
        let address = match url.host().expect("a host") {
            Host::Ipv4(v4) => IpAddr::V4(v4),
            Host::Ipv6(v6) => IpAddr::V6(v6),
            Host::Domain(name) => panic!("{name} is a name"),
        };
        check(address, &allow).is_ok()
    }

    #[test]
    fn what_only_this_machine_can_reach_is_refused() {
        for host in [
            "0.0.0.0",
            "0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.1",
            "127.0.1",
            "0x7f.1",
            "0x7f000001",
            "2130706433",
            "017700000001",
            "127.255.255.254",
            "169.254.0.1",
            "169.254.169.254",
            "169.254.170.2",
            "2852039166",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "100.100.100.200",
            "168.63.129.16",
            "[::]",
            "[::1]",
            "[::127.0.0.1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[::ffff:a9fe:a9fe]",
            "[::ffff:0.0.0.0]",
            "[::ffff:0:7f00:1]",
            "[64:ff9b::7f00:1]",
            "[64:ff9b::10.0.0.1]",
            "[64:ff9b:1::8.8.8.8]",
            "[64:ff9b:1:7f00:0:100::]",
            "[2002:7f00:1::]",
            "[2002:a00:1::1]",
            "[2001:0:808:808::]",
            "[2001:0:7f00:1::80ff:fffe]",
            "[100::1]",
            "[100:0:0:1::1]",
            "[5f00::1]",
            "[2001:db8::1]",
            "[2001:10::1]",
            "[3fff::1]",
            "[fc00::1]",
            "[fd00:ec2::254]",
            "[fd20:ce::254]",
            "[fe80::1]",
            "[febf::1]",
            "[fec0::1]",
            "[ff02::1]",
        ] {
            assert!(!allowed(host, &[]), "{host}");
        }
    }

    #[test]
    fn the_public_internet_may_be_called() {
        for host in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "198.17.255.255",
            "223.255.255.255",
            "[2606:4700::1111]",
            "[2001:4860:4860::8888]",
            "[::ffff:8.8.8.8]",
            "[64:ff9b::8.8.8.8]",
            "[2002:808:808::1]",
        ] {
            assert!(allowed(host, &[]), "{host}");
        }
    }

    #[test]
    fn an_allowed_range_opens_itself_and_nothing_else() {
        for (host, allow, expected) in [
            ("127.0.0.1", "127.0.0.0/8", true),
            ("[::ffff:7f00:1]", "127.0.0.0/8", true),
            ("[64:ff9b::7f00:1]", "127.0.0.0/8", true),
            ("[::1]", "127.0.0.0/8", false),
            ("[::1]", "::1/128", true),
            ("127.0.0.1", "::/0", false),
            ("[::ffff:7f00:1]", "::/0", false),
            ("[2002:7f00:1::]", "::/0", false),
            ("10.1.2.3", "10.1.0.0/16", true),
            ("10.2.2.3", "10.1.0.0/16", false),
            ("0.0.0.0", "127.0.0.0/8", false),
        ] {
            assert_eq!(allowed(host, &[allow]), expected, "{host} with {allow}");
        }
    }

    #[test]
    fn metadata_and_link_local_stay_closed_whatever_is_allowed() {
        let everything = ["0.0.0.0/0", "::/0"];
        for host in [
            "169.254.169.254",
            "169.254.170.2",
            "169.254.1.1",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "[fd00:ec2::254]",
            "[fd00:ec2::23]",
            "[fd20:ce::254]",
            "[fd00:42::42]",
            "[fe80::1]",
            "[::ffff:0:a9fe:a9fe]",
            "[::ffff:169.254.169.254]",
            "[64:ff9b::a9fe:a9fe]",
            "[64:ff9b:1::a9fe:a9fe]",
            "[64:ff9b:1:a9fe:a9:fe00::]",
            "[2002:a9fe:a9fe::]",
            "[::a9fe:a9fe]",
        ] {
            assert!(!allowed(host, &everything), "{host}");
        }
        assert!(allowed("10.0.0.1", &everything));
    }

    proptest! {
        #[test]
        fn every_way_to_embed_a_denied_address_is_denied(v4 in (0_u32..=u32::MAX).prop_map(Ipv4Addr::from)) {
            let [a, b, c, d] = v4.octets();
            let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            let plain = check(IpAddr::V4(v4), &[]);
            for v6 in [
                v4.to_ipv6_mapped(),
                Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, low),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
            ] {
                prop_assert_eq!(check(IpAddr::V6(v6), &[]), plain, "{}", v6);
            }
        }
    }
}
