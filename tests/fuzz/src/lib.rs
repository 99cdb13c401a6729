//! How a target takes a request out of plain bytes: one header field for each line. Asserts nothing itself.

use http::{HeaderMap, HeaderName, HeaderValue};

/// The lines of `data` as fields of this name; lines that are no field value are left out.
pub fn fields(name: &HeaderName, data: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n') {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(name, value);
        }
    }
    headers
}
