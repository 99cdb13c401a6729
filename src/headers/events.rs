//! Server-sent events (the HTML standard, section 9.2).

use http::HeaderMap;
use http::header::CONTENT_TYPE;

/// Whether a message is a stream of events: `text/event-stream`, alone or with parameters.
pub fn is_event_stream(headers: &HeaderMap) -> bool {
    const EVENTS: &[u8] = b"text/event-stream";
    headers.get(CONTENT_TYPE).is_some_and(|value| {
        let parted = value.as_bytes().split_at_checked(EVENTS.len());
        parted.is_some_and(|(start, rest)| {
            start.eq_ignore_ascii_case(EVENTS) && matches!(rest.first(), None | Some(b';' | b' '))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn events_are_their_type_alone_or_with_parameters() {
        let check = |content_type: &'static str, expected| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            assert_eq!(is_event_stream(&headers), expected, "{content_type}");
        };
        check("text/event-stream", true);
        check("Text/Event-Stream; charset=utf-8", true);
        check("text/event-stream ;charset=utf-8", true);
        check("text/event-streams", false);
        check("text/event", false);
        check("application/json", false);
        assert!(!is_event_stream(&HeaderMap::new()));
    }
}
