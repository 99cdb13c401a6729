//! `base::certificate` and the fields of gRPC: files of an operator and words of a client, neither of which may do harm.
#![no_main]

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use std::time::Duration;
use tollhouse::base::certificate;
use tollhouse::headers::grpc;

fuzz_target!(|data: &[u8]| {
    let middle = data.len() / 2;
    if let Ok(read) = certificate::read(&data[..middle], &data[middle..]) {
        assert!(!read.key.cert.is_empty());
    }
    let _ = certificate::read(data, data);
    if let Ok(value) = HeaderValue::from_bytes(data) {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-timeout", value);
        // Eight digits of hours are the longest that there is.
        let longest = Duration::from_secs(99_999_999 * 3600);
        assert!(grpc::patience(&headers).is_none_or(|patience| patience <= longest));
    }
});
