//! What kind of address an address is.
//! Owns: the one table of special ranges, IPv4 and IPv6, and what addresses that carry another one inside stand for.
//! Never: looks a name up, or decides what may be reached; `egress` does.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What an address is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AddressClass {
    /// The Internet.
    Public,
    /// This host: 127.0.0.0/8, ::1.
    Loopback,
    /// RFC 1918.
    Private,
    /// Carrier-grade NAT, 100.64.0.0/10.
    Shared,
    /// IPv6 unique local, fc00::/7.
    UniqueLocal,
    /// Measurements and fake addresses of proxies, 198.18.0.0/15 and 2001:2::/48.
    Benchmark,
    /// A public IPv4 address behind the well-known NAT64 prefix, as hosts without IPv4 are given it.
    Nat64,
    /// No particular address: 0.0.0.0/8, ::.
    Unspecified,
    /// One cable only: 169.254.0.0/16, fe80::/10.
    LinkLocal,
    /// Where clouds hand out credentials to whoever asks from the host.
    Metadata,
    /// For documents only.
    Documentation,
    /// Groups.
    Multicast,
    /// Everybody on the cable.
    Broadcast,
    /// Not assigned to hosts.
    Reserved,
    /// Carries another address inside and leads there past every check: 6to4, Teredo, IPv4-compatible, local NAT64.
    Translated,
}

/// Who may be led to a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Everybody.
    Internet,
    /// Purposes for which the operator has named this host.
    ThisHost,
    /// Purposes that may use private networks.
    PrivateNetwork,
    /// Nobody, whatever is set.
    Never,
}

impl AddressClass {
    /// Stable word for machines.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::Shared => "shared",
            Self::UniqueLocal => "unique_local",
            Self::Benchmark => "benchmark",
            Self::Nat64 => "nat64",
            Self::Unspecified => "unspecified",
            Self::LinkLocal => "link_local",
            Self::Metadata => "metadata",
            Self::Documentation => "documentation",
            Self::Multicast => "multicast",
            Self::Broadcast => "broadcast",
            Self::Reserved => "reserved",
            Self::Translated => "translated",
        }
    }

    /// Who may be led there.
    pub fn reach(self) -> Reach {
        match self {
            Self::Public => Reach::Internet,
            Self::Loopback => Reach::ThisHost,
            Self::Private | Self::Shared | Self::UniqueLocal | Self::Benchmark | Self::Nat64 => Reach::PrivateNetwork,
            Self::Unspecified
            | Self::LinkLocal
            | Self::Metadata
            | Self::Documentation
            | Self::Multicast
            | Self::Broadcast
            | Self::Reserved
            | Self::Translated => Reach::Never,
        }
    }
}

impl fmt::Display for AddressClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A range and what it is for. The longest prefix that holds an address tells its class.
struct Row<A> {
    net: A,
    prefix: u8,
    class: AddressClass,
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8, class: AddressClass) -> Row<u32> {
    Row { net: u32::from_be_bytes([a, b, c, d]), prefix, class }
}

/// Rows of eight groups; the rest of the address is zero but for the last group.
const fn v6(head: [u16; 6], tail: [u16; 2], prefix: u8, class: AddressClass) -> Row<u128> {
    let [a, b, c, d, e, f] = head;
    let [g, h] = tail;
    Row { net: Ipv6Addr::new(a, b, c, d, e, f, g, h).to_bits(), prefix, class }
}

use AddressClass::{
    Benchmark, Broadcast, Documentation, LinkLocal, Loopback, Metadata, Multicast, Nat64, Private, Public, Reserved,
    Shared, Translated, UniqueLocal, Unspecified,
};

/// IPv4: IANA's special-purpose registry, and the metadata services of clouds.
static V4: &[Row<u32>] = &[
    v4(0, 0, 0, 0, 0, Public),
    v4(0, 0, 0, 0, 8, Unspecified),
    v4(10, 0, 0, 0, 8, Private),
    v4(100, 64, 0, 0, 10, Shared),
    v4(100, 100, 100, 200, 32, Metadata),
    v4(127, 0, 0, 0, 8, Loopback),
    v4(168, 63, 129, 16, 32, Metadata),
    v4(169, 254, 0, 0, 16, LinkLocal),
    v4(169, 254, 169, 254, 32, Metadata),
    v4(169, 254, 170, 2, 32, Metadata),
    v4(169, 254, 170, 23, 32, Metadata),
    v4(172, 16, 0, 0, 12, Private),
    v4(192, 0, 0, 0, 24, Reserved),
    v4(192, 0, 0, 192, 32, Metadata),
    v4(192, 0, 2, 0, 24, Documentation),
    v4(192, 88, 99, 0, 24, Reserved),
    v4(192, 168, 0, 0, 16, Private),
    v4(198, 18, 0, 0, 15, Benchmark),
    v4(198, 51, 100, 0, 24, Documentation),
    v4(203, 0, 113, 0, 24, Documentation),
    v4(224, 0, 0, 0, 4, Multicast),
    v4(240, 0, 0, 0, 4, Reserved),
    v4(255, 255, 255, 255, 32, Broadcast),
];

/// IPv6: what is not global unicast is reserved unless a row says otherwise.
static V6: &[Row<u128>] = &[
    v6([0; 6], [0, 0], 0, Reserved),
    v6([0; 6], [0, 0], 96, Translated),
    v6([0; 6], [0, 0], 128, Unspecified),
    v6([0; 6], [0, 1], 128, Loopback),
    v6([0x64, 0xff9b, 0, 0, 0, 0], [0, 0], 96, Nat64),
    v6([0x64, 0xff9b, 1, 0, 0, 0], [0, 0], 48, Translated),
    v6([0, 0, 0, 0, 0xffff, 0], [0, 0], 96, Translated),
    v6([0x2000, 0, 0, 0, 0, 0], [0, 0], 3, Public),
    v6([0x2001, 0, 0, 0, 0, 0], [0, 0], 23, Reserved),
    v6([0x2001, 0, 0, 0, 0, 0], [0, 0], 32, Translated),
    v6([0x2001, 2, 0, 0, 0, 0], [0, 0], 48, Benchmark),
    v6([0x2001, 0xdb8, 0, 0, 0, 0], [0, 0], 32, Documentation),
    v6([0x2002, 0, 0, 0, 0, 0], [0, 0], 16, Translated),
    v6([0x3fff, 0, 0, 0, 0, 0], [0, 0], 20, Documentation),
    v6([0xfc00, 0, 0, 0, 0, 0], [0, 0], 7, UniqueLocal),
    v6([0xfd00, 0xec2, 0, 0, 0, 0], [0, 0x23], 128, Metadata),
    v6([0xfd00, 0xec2, 0, 0, 0, 0], [0, 0x254], 128, Metadata),
    v6([0xfd20, 0xce, 0, 0, 0, 0], [0, 0x254], 128, Metadata),
    v6([0xfe80, 0, 0, 0, 0, 0], [0, 0], 10, LinkLocal),
    v6([0xff00, 0, 0, 0, 0, 0], [0, 0], 8, Multicast),
];

/// The class of `address`. An IPv4-mapped IPv6 address is the IPv4 address: the kernel connects there.
pub fn classify(address: IpAddr) -> AddressClass {
    match address.to_canonical() {
        IpAddr::V4(address) => of_v4(address),
        IpAddr::V6(address) => of_v6(address),
    }
}

fn of_v4(address: Ipv4Addr) -> AddressClass {
    let bits = address.to_bits();
    let holds = |row: &&Row<u32>| (bits ^ row.net).checked_shr(32 - u32::from(row.prefix)).unwrap_or(0) == 0;
    longest(V4.iter().filter(holds))
}

fn of_v6(address: Ipv6Addr) -> AddressClass {
    let bits = address.to_bits();
    let holds = |row: &&Row<u128>| (bits ^ row.net).checked_shr(128 - u32::from(row.prefix)).unwrap_or(0) == 0;
    match longest(V6.iter().filter(holds)) {
        // Only public IPv4 addresses have a place behind the well-known prefix (RFC 6052, 3.1).
        Nat64 if of_v4(Ipv4Addr::from_bits(bits as u32)) != Public => Translated,
        class => class,
    }
}

fn longest<'a, A: 'a>(rows: impl Iterator<Item = &'a Row<A>>) -> AddressClass {
    rows.max_by_key(|row| row.prefix).map_or(Reserved, |row| row.class)
}

/// Addresses with a common beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    net: IpAddr,
    prefix: u8,
}

impl Block {
    /// Reads `address` or `address/prefix`. The address must be the block's first one, so that a slip of the pen is
    /// seen.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => {
                let is_plain = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
                (address, Some(prefix).filter(|_| is_plain)?.parse().ok()?)
            }
            None => (text, u8::MAX),
        };
        let net: IpAddr = address.parse().ok()?;
        let bits_max = if net.is_ipv4() { 32 } else { 128 };
        let prefix = if text.contains('/') { prefix } else { bits_max };
        let block = Self { net, prefix };
        (prefix <= bits_max && block.first() == net).then_some(block)
    }

    /// Whether its addresses are IPv6.
    pub(super) fn is_v6(&self) -> bool {
        self.net.is_ipv6()
    }

    fn first(&self) -> IpAddr {
        match self.net {
            IpAddr::V4(net) => {
                let host = u32::MAX.checked_shr(u32::from(self.prefix)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(net.to_bits() & !host))
            }
            IpAddr::V6(net) => {
                let host = u128::MAX.checked_shr(u32::from(self.prefix)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(net.to_bits() & !host))
            }
        }
    }

    /// Whether `address` belongs to the block; IPv4-mapped IPv6 counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.net, address.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(address)) => {
                (net.to_bits() ^ address.to_bits()).checked_shr(32 - u32::from(self.prefix)).unwrap_or(0) == 0
            }
            (IpAddr::V6(net), IpAddr::V6(address)) => {
                (net.to_bits() ^ address.to_bits()).checked_shr(128 - u32::from(self.prefix)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.net, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// First and last address of every special range, and the public neighbours of those that have some; written down
    /// from the registries, not from the table above.
    const EDGES: &[(&str, AddressClass)] = &[
        ("0.0.0.0", Unspecified),
        ("0.255.255.255", Unspecified),
        ("1.0.0.0", Public),
        ("9.255.255.255", Public),
        ("10.0.0.0", Private),
        ("10.255.255.255", Private),
        ("11.0.0.0", Public),
        ("100.63.255.255", Public),
        ("100.64.0.0", Shared),
        ("100.100.100.200", Metadata),
        ("100.127.255.255", Shared),
        ("100.128.0.0", Public),
        ("126.255.255.255", Public),
        ("127.0.0.0", Loopback),
        ("127.255.255.255", Loopback),
        ("128.0.0.0", Public),
        ("168.63.129.15", Public),
        ("168.63.129.16", Metadata),
        ("169.253.255.255", Public),
        ("169.254.0.0", LinkLocal),
        ("169.254.169.254", Metadata),
        ("169.254.170.2", Metadata),
        ("169.254.170.23", Metadata),
        ("169.254.255.255", LinkLocal),
        ("169.255.0.0", Public),
        ("172.15.255.255", Public),
        ("172.16.0.0", Private),
        ("172.31.255.255", Private),
        ("172.32.0.0", Public),
        ("191.255.255.255", Public),
        ("192.0.0.0", Reserved),
        ("192.0.0.192", Metadata),
        ("192.0.0.255", Reserved),
        ("192.0.1.0", Public),
        ("192.0.2.0", Documentation),
        ("192.0.2.255", Documentation),
        ("192.0.3.0", Public),
        ("192.88.98.255", Public),
        ("192.88.99.0", Reserved),
        ("192.88.99.255", Reserved),
        ("192.88.100.0", Public),
        ("192.167.255.255", Public),
        ("192.168.0.0", Private),
        ("192.168.255.255", Private),
        ("192.169.0.0", Public),
        ("198.17.255.255", Public),
        ("198.18.0.0", Benchmark),
        ("198.19.255.255", Benchmark),
        ("198.20.0.0", Public),
        ("198.51.99.255", Public),
        ("198.51.100.0", Documentation),
        ("198.51.100.255", Documentation),
        ("198.51.101.0", Public),
        ("203.0.112.255", Public),
        ("203.0.113.0", Documentation),
        ("203.0.113.255", Documentation),
        ("203.0.114.0", Public),
        ("223.255.255.255", Public),
        ("224.0.0.0", Multicast),
        ("239.255.255.255", Multicast),
        ("240.0.0.0", Reserved),
        ("255.255.255.254", Reserved),
        ("255.255.255.255", Broadcast),
        ("::", Unspecified),
        ("::1", Loopback),
        ("::2", Translated),
        ("::7f00:1", Translated),
        ("::ffff:127.0.0.1", Loopback),
        ("::ffff:8.8.8.8", Public),
        ("::ffff:0:127.0.0.1", Translated),
        ("::1:0:0:0", Reserved),
        ("64:ff9b::8.8.8.8", Nat64),
        ("64:ff9b::10.0.0.1", Translated),
        ("64:ff9b::169.254.169.254", Translated),
        ("64:ff9b::1:0:0", Reserved),
        ("64:ff9b:1::", Translated),
        ("64:ff9b:1:ffff:ffff:ffff:ffff:ffff", Translated),
        ("64:ff9b:2::", Reserved),
        ("100::1", Reserved),
        ("1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Reserved),
        ("2000::", Public),
        ("2001::", Translated),
        ("2001:0:ffff:ffff:ffff:ffff:ffff:ffff", Translated),
        ("2001:1::1", Reserved),
        ("2001:2::1", Benchmark),
        ("2001:2:1::", Reserved),
        ("2001:10::", Reserved),
        ("2001:20::", Reserved),
        ("2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", Reserved),
        ("2001:200::", Public),
        ("2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", Public),
        ("2001:db8::", Documentation),
        ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", Documentation),
        ("2001:db9::", Public),
        ("2001:4860:4860::8888", Public),
        ("2002::", Translated),
        ("2002:808:808::1", Translated),
        ("2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Translated),
        ("2003::", Public),
        ("3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Public),
        ("3fff::", Documentation),
        ("3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", Documentation),
        ("3fff:1000::", Public),
        ("4000::", Reserved),
        ("5f00::1", Reserved),
        ("fbff::1", Reserved),
        ("fc00::", UniqueLocal),
        ("fd00:ec2::254", Metadata),
        ("fd00:ec2::23", Metadata),
        ("fd00:ec2::253", UniqueLocal),
        ("fd20:ce::254", Metadata),
        ("fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", UniqueLocal),
        ("fe00::", Reserved),
        ("fe80::1", LinkLocal),
        ("febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", LinkLocal),
        ("fec0::1", Reserved),
        ("ff00::", Multicast),
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Multicast),
    ];

    #[test]
    fn every_range_ends_where_the_registries_say() {
        let wrong: Vec<String> = EDGES
            .iter()
            .map(|(text, class)| (text, class, classify(text.parse().expect(text))))
            .filter(|(_, class, found)| found != *class)
            .map(|(text, class, found)| format!("{text}: {found}, not {class}"))
            .collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    /// All forms in which an IPv4 address travels inside an IPv6 one.
    fn forms(inner: Ipv4Addr) -> [(&'static str, Ipv6Addr); 6] {
        let bits = u128::from(inner.to_bits());
        let at = |net: &str, shift: u32, bits: u128| {
            Ipv6Addr::from_bits(net.parse::<Ipv6Addr>().expect(net).to_bits() | bits << shift)
        };
        [
            ("mapped", at("::ffff:0:0", 0, bits)),
            ("compatible", at("::", 0, bits)),
            ("stateless", at("::ffff:0:0:0", 0, bits)),
            ("nat64", at("64:ff9b::", 0, bits)),
            ("6to4", at("2002::", 80, bits)),
            ("teredo", at("2001::", 0, !bits & 0xffff_ffff)),
        ]
    }

    #[test]
    fn no_special_address_is_public_in_any_form_that_carries_it() {
        // SplitMix64, so that every run looks at the same addresses.
        let mut state: u64 = 7;
        let mut next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        let special = V4.iter().filter(|row| row.class != Public);
        for row in special {
            for _ in 0..2_000 {
                let host = u32::MAX.checked_shr(u32::from(row.prefix)).unwrap_or(0);
                let inner = Ipv4Addr::from_bits(row.net | next() as u32 & host);
                assert_ne!(classify(inner.into()), Public, "{inner}");
                for (form, outer) in forms(inner) {
                    assert_ne!(classify(outer.into()), Public, "{inner} as {form}: {outer}");
                }
            }
        }
        for _ in 0..20_000 {
            // A public address is public as itself and as mapped, and nowhere else.
            let inner = Ipv4Addr::from_bits(next() as u32);
            let is_public = classify(inner.into()) == Public;
            for (form, outer) in forms(inner) {
                assert_eq!(classify(outer.into()) == Public, is_public && form == "mapped", "{inner} as {form}");
            }
            // What the standard library knows to be special is never public here.
            let known = inner.is_private() || inner.is_loopback() || inner.is_link_local() || inner.is_multicast();
            assert!(!(known || inner.is_documentation() || inner.is_broadcast()) || !is_public, "{inner}");
        }
    }

    #[test]
    fn a_block_holds_its_addresses_and_a_slip_of_the_pen_is_no_block() {
        for (text, inside, outside) in [
            ("10.1.0.0/16", "10.1.255.255", "10.2.0.0"),
            ("10.0.0.7", "10.0.0.7", "10.0.0.8"),
            ("0.0.0.0/0", "8.8.8.8", "2001:4860::1"),
            ("::/0", "2001:4860::1", "8.8.8.8"),
            ("fd12::/16", "fd12:ffff::1", "fd13::1"),
            ("2001:4860::8888", "2001:4860::8888", "2001:4860::8889"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::ffff:11.1.2.3"),
        ] {
            let block = Block::parse(text).expect(text);
            let holds = |address: &str| block.contains(address.parse().expect(address));
            assert_eq!((holds(inside), holds(outside)), (true, false), "{text}");
        }
        for text in ["", "10.0.0.1/8", "10.0.0.0/33", "::1/64", "::/129", "10.0.0.0/", "10.0.0.0/+8", "10/8", "0x7f.1"]
        {
            assert_eq!(Block::parse(text), None, "{text:?}");
        }
    }
}
