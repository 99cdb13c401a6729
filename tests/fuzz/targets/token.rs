//! `token::jose::Jws::parse` and `token::json::object`: one spelling for each token, one reading for each object.
//! The bytes are a token; and the lines of them are header and payload of another.
#![no_main]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tollhouse::token::jose::{Jws, MAX_KID_BYTES, algorithm};
use tollhouse::token::json::{MAX_DEPTH, object};

fuzz_target!(|data: &[u8]| {
    token(data);
    let (header, payload) = match data.iter().position(|b| *b == b'\n') {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &b"{}"[..]),
    };
    let [header, payload] = [header, payload].map(|part| URL_SAFE_NO_PAD.encode(part));
    token(format!("{header}.{payload}.AAAA").as_bytes());
    for part in data.splitn(2, |b| *b == b'\n') {
        json(part);
    }
});

fn token(token: &[u8]) {
    let Ok(jws) = Jws::parse(token) else { return };
    // Nothing of it is lost, and there is no other spelling of it.
    assert_eq!([jws.signed, b".", jws.signature.as_bytes()].concat(), token);
    let segments: Vec<&[u8]> = token.split(|b| *b == b'.').collect();
    let [header, payload, signature] = segments[..] else {
        panic!("not three segments")
    };
    for segment in [header, payload, signature] {
        let bytes = URL_SAFE_NO_PAD.decode(segment).unwrap();
        assert_eq!(URL_SAFE_NO_PAD.encode(bytes).as_bytes(), segment);
    }
    assert_eq!(URL_SAFE_NO_PAD.encode(&jws.payload).as_bytes(), payload);

    let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
    assert_eq!(
        algorithm(header["alg"].as_str().unwrap()),
        Some(jws.algorithm)
    );
    assert_eq!(
        header.get("kid").map(|kid| kid.as_str().unwrap()),
        jws.kid.as_deref()
    );
    assert!(jws.kid.is_none_or(|kid| kid.len() <= MAX_KID_BYTES));
    assert!(header.get("crit").is_none() && header.get("b64").is_none());
    if let Some(typ) = header.get("typ") {
        let typ = typ.as_str().unwrap().to_ascii_lowercase();
        assert!(
            ["jwt", "at+jwt", "application/jwt", "application/at+jwt"].contains(&&*typ),
            "{typ}"
        );
    }
}

fn json(text: &[u8]) {
    let lenient: Option<Value> = serde_json::from_slice(text).ok();
    let Some(members) = object(text) else {
        // Only for a reason: no object, too deep, or a member twice, and then writing it down again loses one.
        if let Some(value @ Value::Object(_)) = lenient
            && depth(&value) <= MAX_DEPTH.into()
        {
            let colons = |text: &[u8]| text.iter().filter(|b| **b == b':').count();
            let plain = !text.contains(&b'\\');
            assert!(!plain || colons(&serde_json::to_vec(&value).unwrap()) < colons(text));
        }
        return;
    };
    let value = Value::Object(members);
    assert_eq!(lenient.as_ref(), Some(&value));
    assert!(depth(&value) <= MAX_DEPTH.into());
    let within = |before: &[u8], after: &[u8]| object(&[before, text, after].concat()).is_some();
    assert_eq!(within(br#"{"x":"#, b"}"), depth(&value) < MAX_DEPTH.into());
    assert!(!within(br#"{"x":"#, br#","\u0078":0}"#), "a member twice");
    assert!(
        !within(b"", b"{}") && !within(b"", b","),
        "something after it"
    );
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}
