//! What the settings open and what nothing opens, as tables.
//! Owns: nothing.
//! Never: looks a name up.

use super::*;

fn policy(allow: &[&str], private: &[&str], air_gapped: bool) -> EgressPolicy {
    let texts = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    EgressPolicy::new(&texts(allow), &texts(private), air_gapped).expect("settings")
}

fn to(purpose: Purpose, host: &str, port: u16) -> Destination {
    Destination { purpose, host: Host::parse(host).expect(host), port, allow_private: false }
}

/// Both looks, as a request takes them.
fn judge(policy: &EgressPolicy, destination: &Destination, answers: &[&str]) -> Result<(), Refusal> {
    policy.check_host(destination)?;
    answers.iter().try_for_each(|address| policy.check_address(destination, address.parse().expect("address")))
}

fn refused(class: AddressClass) -> Result<(), Refusal> {
    Err(Refusal::Address(class))
}

/// One address of each class that is not public.
const SPECIAL: [(&str, AddressClass); 14] = [
    ("127.0.0.1", AddressClass::Loopback),
    ("10.1.2.3", AddressClass::Private),
    ("100.64.0.1", AddressClass::Shared),
    ("[fd00::1]", AddressClass::UniqueLocal),
    ("198.18.0.1", AddressClass::Benchmark),
    ("[64:ff9b::8.8.8.8]", AddressClass::Nat64),
    ("0.0.0.0", AddressClass::Unspecified),
    ("169.254.1.1", AddressClass::LinkLocal),
    ("169.254.169.254", AddressClass::Metadata),
    ("192.0.2.1", AddressClass::Documentation),
    ("224.0.0.1", AddressClass::Multicast),
    ("255.255.255.255", AddressClass::Broadcast),
    ("240.0.0.1", AddressClass::Reserved),
    ("[2002:7f00:1::]", AddressClass::Translated),
];

#[test]
fn what_nobody_reaches_no_setting_opens() {
    let mut everything = vec!["provider", "web", "hook", "mcp", "connector", "oauth"];
    let all: Vec<&str> = SPECIAL.iter().map(|(host, _)| *host).collect();
    let blocks = ["0.0.0.0/0", "::/0"];
    let opened = policy(&[&all[..], &blocks[..]].concat(), &everything, false);
    everything.clear();
    for purpose in Purpose::ALL {
        for (host, class) in SPECIAL {
            let mut destination = to(purpose, host, 80);
            destination.allow_private = true;
            let expected = match class.reach() {
                Reach::Never => refused(class),
                _ => Ok(()),
            };
            assert_eq!(judge(&opened, &destination, &[]), expected, "{purpose} {host}");
        }
    }
}

#[test]
fn each_purpose_reaches_by_default_what_the_documents_say() {
    let open = EgressPolicy::default();
    for purpose in Purpose::ALL {
        assert_eq!(judge(&open, &to(purpose, "example.com", 443), &["8.8.8.8", "2001:4860::1"]), Ok(()), "{purpose}");
        for (host, class) in SPECIAL {
            let expected = match (class.reach(), purpose) {
                (Reach::ThisHost | Reach::PrivateNetwork, Purpose::Provider) => Ok(()),
                _ => refused(class),
            };
            let address = host.trim_matches(['[', ']']);
            let written = match (class.reach(), purpose) {
                (Reach::ThisHost, Purpose::Mcp | Purpose::OAuth) => Ok(()),
                _ => expected,
            };
            assert_eq!(judge(&open, &to(purpose, host, 80), &[]), written, "{purpose} {host}");
            // The same address behind a name, also beside a good one.
            let named = to(purpose, "example.com", 80);
            assert_eq!(judge(&open, &named, &["8.8.8.8", address]), expected, "{purpose}, a name for {host}");
        }
        let expected = match purpose {
            Purpose::Provider | Purpose::Mcp | Purpose::OAuth => Ok(()),
            _ => refused(AddressClass::Loopback),
        };
        for name in ["localhost", "LOCALHOST.", "x.localhost"] {
            assert_eq!(judge(&open, &to(purpose, name, 80), &[]), expected, "{purpose} {name}");
        }
    }
    assert_eq!(judge(&open, &to(Purpose::CommandLine, "example.com", 80), &[]), Err(Refusal::Purpose));
    let typed = to(Purpose::CommandLine, "169.254.1.1", 80);
    assert_eq!(judge(&EgressPolicy::command_line(), &typed, &["169.254.1.1"]), Ok(()));
}

#[test]
fn a_purpose_or_a_destination_opens_private_networks_for_itself_alone() {
    let opened = policy(&[], &["hook"], false);
    assert_eq!(judge(&opened, &to(Purpose::Hook, "10.1.2.3", 80), &[]), Ok(()));
    assert_eq!(judge(&opened, &to(Purpose::Hook, "127.0.0.1", 80), &[]), Ok(()));
    assert_eq!(judge(&opened, &to(Purpose::Connector, "10.1.2.3", 80), &[]), refused(AddressClass::Private));
    let mut own = to(Purpose::Connector, "localhost", 80);
    own.allow_private = true;
    assert_eq!(judge(&opened, &own, &["127.0.0.1"]), Ok(()));
    // A model's request is nobody's destination.
    let mut web = to(Purpose::Web, "10.1.2.3", 80);
    web.allow_private = true;
    assert_eq!(judge(&opened, &web, &[]), refused(AddressClass::Private));
}

#[test]
fn a_model_reaches_this_host_only_by_an_address_that_is_listed_with_its_port_and_opened() {
    let web = |host: &str, port| to(Purpose::Web, host, port);
    let opened = policy(&["127.0.0.1:8080", "localhost", "intranet.example"], &["web"], false);
    assert_eq!(judge(&opened, &web("127.0.0.1", 8080), &[]), Ok(()));
    for destination in [web("127.0.0.1", 4000), web("127.0.0.2", 8080), web("localhost", 8080), web("[::1]", 8080)] {
        assert_eq!(judge(&opened, &destination, &[]), refused(AddressClass::Loopback), "{destination:?}");
    }
    let rebound = judge(&opened, &web("intranet.example", 8080), &["127.0.0.1"]);
    assert_eq!(rebound, refused(AddressClass::Loopback));
    assert_eq!(judge(&opened, &web("intranet.example", 8080), &["10.0.0.1"]), Ok(()));
    let listed_only = policy(&["127.0.0.1:8080"], &[], false);
    assert_eq!(judge(&listed_only, &web("127.0.0.1", 8080), &[]), refused(AddressClass::Loopback));
    let opened_only = policy(&[], &["web"], false);
    assert_eq!(judge(&opened_only, &web("127.0.0.1", 8080), &[]), refused(AddressClass::Loopback));
}

#[test]
fn a_list_holds_for_every_purpose_and_by_name_before_anything_is_looked_up() {
    let list = ["api.example.com:443", "*.corp.example", "8.8.8.0/24:53", "2001:4860::/32", "[2001:4861::1]:80"];
    let (open, cut_off) = (policy(&list, &[], false), policy(&list, &[], true));
    assert!(open.is_restrictive() && cut_off.is_restrictive() && !EgressPolicy::default().is_restrictive());
    for purpose in Purpose::ALL {
        for (host, port, listed) in [
            ("api.example.com", 443, true),
            ("API.example.com.", 443, true),
            ("api.example.com", 80, false),
            ("x.api.example.com", 443, false),
            ("example.com", 443, false),
            ("a.corp.example", 1, true),
            ("a.b.corp.example", 1, true),
            ("corp.example", 1, false),
            ("badcorp.example", 1, false),
            ("8.8.8.8", 53, true),
            ("[::ffff:8.8.8.8]", 53, true),
            ("8.8.8.8", 80, false),
            ("8.8.9.8", 53, false),
            ("[2001:4860::8888]", 1, true),
            ("[2001:4861::1]", 80, true),
            ("[2001:4861::1]", 81, false),
        ] {
            let destination = to(purpose, host, port);
            let expected = |refusal| if listed { Ok(()) } else { Err(refusal) };
            assert_eq!(open.check_host(&destination), expected(Refusal::NotListed), "{purpose} {host}:{port}");
            assert_eq!(cut_off.check_host(&destination), expected(Refusal::AirGapped), "{purpose} {host}:{port}");
        }
    }
    // A listed name opens no private network.
    let listed = to(Purpose::Hook, "a.corp.example", 80);
    assert_eq!(judge(&open, &listed, &["10.0.0.1"]), refused(AddressClass::Private));
}

#[test]
fn cut_off_means_this_host_and_nothing_else() {
    let cut_off = policy(&[], &["provider", "web", "hook", "mcp", "connector", "oauth"], true);
    for purpose in Purpose::ALL {
        let local = if purpose == Purpose::Web { refused(AddressClass::Loopback) } else { Ok(()) };
        assert_eq!(judge(&cut_off, &to(purpose, "127.0.0.1", 80), &[]), local, "{purpose}");
        assert_eq!(judge(&cut_off, &to(purpose, "localhost", 80), &[]), local, "{purpose}");
        for host in ["example.com", "10.0.0.1", "8.8.8.8", "[2001:4860::1]", "[fd00::1]"] {
            assert_eq!(judge(&cut_off, &to(purpose, host, 80), &[]), Err(Refusal::AirGapped), "{purpose} {host}");
        }
    }
}

#[test]
fn a_setting_that_says_something_else_than_it_seems_is_refused() {
    let new = |allow: &str| EgressPolicy::new(&[allow.to_string()], &[], false);
    for text in [
        "",
        "*",
        "*.",
        "*.10.0.0.0/8",
        "*.*.example",
        "a*.example",
        "https://api.example.com",
        "api.example.com/v1",
        "api.example.com:",
        "api.example.com:0",
        "api.example.com:99999",
        "api.example.com:https",
        "user@api.example.com",
        "10.0.0.1/8",
        "2130706433",
        "0x7f.1",
        "bücher.example",
    ] {
        let error = new(text).expect_err(text);
        assert_eq!(error.flag, "--egress-allow", "{text}");
    }
    for (text, spelling) in [
        ("API.Example.com.:443", "api.example.com:443"),
        ("*.Example.com", "*.example.com"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.0.0.0/8:443", "10.0.0.0/8:443"),
        ("10.0.0.7", "10.0.0.7/32"),
        ("::1", "::1/128"),
        ("[::1]:8080", "[::1/128]:8080"),
        ("[::1]", "::1/128"),
        ("[fd00::/8]:443", "[fd00::/8]:443"),
    ] {
        assert_eq!(new(text).expect(text).view().allow, [spelling], "{text}");
    }
    let many = vec!["a.example".to_string(); EGRESS_ALLOW_MAX + 1];
    assert!(EgressPolicy::new(&many, &[], false).is_err() && EgressPolicy::new(&many[1..], &[], false).is_ok());
    let unknown = EgressPolicy::new(&[], &["everything".to_string()], false).expect_err("no purpose");
    assert_eq!(unknown.flag, "--egress-allow-private");
    let view = policy(&[], &["web"], true).view();
    assert_eq!((view.mode, view.private_networks), ("air_gapped", vec!["provider", "web"]));
}
