//! Who a request is, in logs and across services: the request id (UUIDv7, RFC 9562 §5.7) and the trace context
//! (W3C Trace Context). Reads and writes header values; sends nothing and keeps nothing.

use crate::base::clock::Clock;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::fmt;
use uuid::{NoContext, Timestamp, Uuid};

/// `X-Request-Id`.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// `traceparent` (W3C Trace Context §3.2).
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Longest request id that is taken over, in bytes.
const ID_MAX: usize = 128;

/// Mints request ids. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct RequestIds {
    clock: Clock,
}

impl RequestIds {
    /// Ids carry the time of this clock.
    pub fn new(clock: Clock) -> Self {
        Self { clock }
    }

    /// The request's id and the trace it belongs to.
    ///
    /// The id is the one that came in, when the peer is trusted and sent exactly one of 1–128 of `[A-Za-z0-9._-]`; else
    /// a UUIDv7, so that ids sort by time.
    ///
    /// The trace is the one that came in, when it is valid; else a new one. Anybody's is continued, as the standard asks:
    /// an id that strangers may choose links log lines and grants nothing.
    pub fn begin(&self, headers: &HeaderMap, peer_trusted: bool) -> (HeaderValue, Trace) {
        let ms = self.clock.unix_millis();
        let uuid = uuid(ms);
        let id = if peer_trusted
            && let Some(id) = only(headers, &X_REQUEST_ID)
            && is_id(id.as_bytes())
        {
            id.clone()
        } else {
            let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
            ascii(uuid.hyphenated().encode_lower(&mut text).as_bytes())
        };
        // The last 8 bytes of a UUIDv7 are random but for two fixed bits, so never all zero. That the id has them, too,
        // tells nobody anything: both are told to the same.
        let span = &uuid.as_bytes()[8..];
        (id, trace(headers, span, ms))
    }
}

fn trace(headers: &HeaderMap, span: &[u8], ms: u64) -> Trace {
    if let Some(parent) = only(headers, &TRACEPARENT).and_then(|v| parse(v.as_bytes())) {
        return Trace::new(parent.trace_id, span, parent.flags, true);
    }
    let mut trace_id = [0; 32];
    hex(uuid(ms).as_bytes(), &mut trace_id);
    // Sampled: our record of the request carries the trace id, and a cleared flag would make upstreams that
    // follow their parent drop every trace.
    Trace::new(&trace_id, span, SAMPLED, false)
}

fn uuid(ms: u64) -> Uuid {
    // Without a counter: no lock is shared by the workers, and ids of one millisecond need no order.
    let nanos = u32::try_from(ms % 1000).unwrap_or(0) * 1_000_000;
    Uuid::new_v7(Timestamp::from_unix(NoContext, ms / 1000, nanos))
}

const SAMPLED: u8 = 0x01;
/// Flags that version 00 knows: sampled, and random trace id (level 2).
const KNOWN_FLAGS: u8 = 0x03;
/// Bytes of a version 00 `traceparent`.
const LENGTH: usize = 55;

/// The trace context of one request, as it goes upstream.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    text: [u8; LENGTH],
    continued: bool,
}

impl Trace {
    fn new(trace_id: &[u8; 32], span: &[u8], flags: u8, continued: bool) -> Self {
        let mut text = [b'-'; LENGTH];
        text[..2].copy_from_slice(b"00");
        text[3..35].copy_from_slice(trace_id);
        hex(span, &mut text[36..52]);
        hex(&[flags & KNOWN_FLAGS], &mut text[53..]);
        Self { text, continued }
    }

    /// The `traceparent` to send on, with our span as the parent.
    pub fn header(&self) -> HeaderValue {
        ascii(&self.text)
    }

    /// 32 lower-case hex digits.
    pub fn trace_id(&self) -> &str {
        std::str::from_utf8(&self.text[3..35]).unwrap_or_default()
    }

    /// Whether a valid `traceparent` came in. If not, a `tracestate` that came in must not go on.
    pub fn continued(&self) -> bool {
        self.continued
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Trace")
            .field(&String::from_utf8_lossy(&self.text))
            .finish()
    }
}

struct Parent<'a> {
    trace_id: &'a [u8; 32],
    flags: u8,
}

/// `version-traceid-parentid-flags`, all lower-case hex; ids not all zero. A later version may have more behind it.
fn parse(text: &[u8]) -> Option<Parent<'_>> {
    let (head, rest) = text.split_at_checked(LENGTH)?;
    let version = byte(head.get(..2)?)?;
    let shape = match version {
        0 => rest.is_empty(),
        0xff => false,
        _ => rest.first().is_none_or(|b| *b == b'-'),
    };
    let (trace_id, span) = (&head[3..35], &head[36..52]);
    let dashes = [2, 35, 52].iter().all(|at| head[*at] == b'-');
    let ids = [trace_id, span]
        .iter()
        .all(|id| id.iter().all(|b| digit(*b).is_some()) && id.iter().any(|b| *b != b'0'));
    let flags = byte(&head[53..])?;
    (shape && dashes && ids).then_some(())?;
    Some(Parent {
        trace_id: trace_id.try_into().ok()?,
        flags,
    })
}

fn byte(two: &[u8]) -> Option<u8> {
    match two {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    }
}

fn digit(b: u8) -> Option<u8> {
    match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    }
}

/// Writes two digits a byte, as far as `out` reaches.
fn hex(bytes: &[u8], out: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (two, byte) in out.chunks_exact_mut(2).zip(bytes) {
        two[0] = DIGITS[usize::from(byte >> 4)];
        two[1] = DIGITS[usize::from(byte & 0xf)];
    }
}

fn is_id(text: &[u8]) -> bool {
    (1..=ID_MAX).contains(&text.len())
        && text
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// The field's value, when the field is there exactly once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    values.next().is_none().then_some(first)
}

/// Bytes that are hex digits and dashes by construction.
fn ascii(text: &[u8]) -> HeaderValue {
    HeaderValue::from_bytes(text).unwrap_or_else(|_| HeaderValue::from_static("-"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers(name: HeaderName, values: &[&str]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for value in values {
            map.append(name.clone(), HeaderValue::from_str(value).unwrap());
        }
        map
    }

    #[test]
    fn an_id_is_a_uuid_of_version_7_with_the_time_in_it() {
        let ids = RequestIds::new(Clock::frozen(1_700_000_000));
        let (one, _) = ids.begin(&HeaderMap::new(), false);
        let (two, _) = ids.begin(&HeaderMap::new(), false);
        assert_ne!(one, two);
        let uuid = Uuid::parse_str(one.to_str().unwrap()).unwrap();
        assert_eq!(uuid.get_version_num(), 7);
        assert_eq!(uuid.get_timestamp().unwrap().to_unix(), (1_700_000_000, 0));
    }

    #[test]
    fn only_a_trusted_peers_single_clean_id_is_kept() {
        let long = "a".repeat(128);
        let too_long = "a".repeat(129);
        let check = |values: &[&str], trusted: bool, kept: bool| {
            let (id, _) = RequestIds::default().begin(&headers(X_REQUEST_ID, values), trusted);
            assert_eq!(
                values.first().is_some_and(|v| id == v),
                kept,
                "{values:?} {trusted}"
            );
        };
        check(&["abc-1.2_Z"], true, true);
        check(&["abc-1.2_Z"], false, false);
        check(&[&long], true, true);
        check(&[&too_long], true, false);
        check(&["one", "two"], true, false);
        check(&[""], true, false);
        check(&["a b"], true, false);
        check(&["a,b"], true, false);
        check(&[], true, false);
    }

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn a_valid_trace_is_continued_with_a_span_of_ours() {
        let check = |value: &str, flags: &str| {
            let (_, trace) = RequestIds::default().begin(&headers(TRACEPARENT, &[value]), false);
            assert!(trace.continued(), "{value}");
            assert_eq!(trace.trace_id(), TRACE);
            let header = trace.header();
            let text = header.to_str().unwrap();
            assert!(text.starts_with(&format!("00-{TRACE}-")), "{text}");
            assert!(text.ends_with(flags), "{text}");
            assert!(!text.contains("00f067aa0ba902b7"), "{text}");
        };
        check(&format!("00-{TRACE}-00f067aa0ba902b7-01"), "-01");
        check(&format!("00-{TRACE}-00f067aa0ba902b7-00"), "-00");
        check(&format!("00-{TRACE}-00f067aa0ba902b7-ff"), "-03");
        check(&format!("cc-{TRACE}-00f067aa0ba902b7-01-more"), "-01");
    }

    #[test]
    fn anything_else_starts_a_new_trace() {
        let check = |values: &[&str]| {
            let (_, trace) = RequestIds::default().begin(&headers(TRACEPARENT, values), false);
            assert!(!trace.continued(), "{values:?}");
            assert!(parse(trace.header().as_bytes()).is_some());
            assert_ne!(trace.trace_id(), TRACE);
        };
        let good = format!("00-{TRACE}-00f067aa0ba902b7-01");
        check(&[]);
        check(&[&good, &good]);
        check(&[&format!("{good}-more")]);
        check(&[&format!("ff-{TRACE}-00f067aa0ba902b7-01")]);
        check(&[&format!("cc-{TRACE}-00f067aa0ba902b7-01more")]);
        check(&[&good.to_uppercase()]);
        check(&[&format!("00-{TRACE}-0000000000000000-01")]);
        check(&[&format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32))]);
        check(&[&good[..54]]);
        check(&[&good.replace('-', "_")]);
        check(&[&format!("00-{TRACE}-00f067aa0ba902b7-0x")]);
    }

    proptest! {
        #[test]
        fn whatever_arrives_what_goes_on_is_valid(bytes in proptest::collection::vec(0x20u8..0x7f, 0..80)) {
            let mut map = HeaderMap::new();
            map.insert(TRACEPARENT, HeaderValue::from_bytes(&bytes).unwrap());
            let (_, trace) = RequestIds::default().begin(&map, false);
            prop_assert!(parse(trace.header().as_bytes()).is_some());
        }
    }
}
