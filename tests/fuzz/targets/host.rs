//! `headers::host::Host::parse`: what it accepts is one name and perhaps a port, to us and to the reader of URIs.
#![no_main]

use http::HeaderMap;
use http::uri::Authority;
use libfuzzer_sys::fuzz_target;
use tollhouse::headers::host::Host;

fuzz_target!(|text: &str| {
    let Some(host) = Host::parse(text) else {
        return;
    };
    assert_eq!(host.authority, text);
    assert_eq!(
        host.to_value(&HeaderMap::new()).unwrap().as_bytes(),
        text.as_bytes()
    );
    assert_ne!(host.port, Some(0));

    let name = &*host.name;
    assert!(!name.is_empty() && name.len() <= 253);
    assert!(
        name.bytes()
            .all(|b| b.is_ascii_graphic() && !b.is_ascii_uppercase()),
        "{name}"
    );
    let bracketed = name.starts_with('[') && name.ends_with(']');
    assert!(bracketed || !name.contains([':', '[', ']']), "{name}");
    assert!(
        !name.contains(['@', ',', '/', '?', '#', '\\', '%']),
        "{name}"
    );
    assert!(!name.ends_with('.') && !name.starts_with('.'), "{name}");

    let other: Authority = text.parse().expect("a URI can hold it");
    assert!(other.host().eq_ignore_ascii_case(name));
    assert_eq!(other.port_u16(), host.port);

    let whole = match host.port {
        Some(port) => format!("{name}:{port}"),
        None => name.to_owned(),
    };
    assert_eq!(whole, text.to_ascii_lowercase());
    let again = Host::parse(&whole).expect("lower case changes nothing");
    assert_eq!((again.name, again.port), (host.name, host.port));
});
