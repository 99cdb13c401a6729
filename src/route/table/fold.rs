//! Letters without their case, as generously as any server behind the gateway may read a path.

/// Lower case as generously as any server may fold it: escapes decoded, then every character through upper case, which
/// also unites the Kelvin sign with `k` and the long s with `s`. What an escape of `/`, `\` or `%` stands for could change
/// the segments or be decoded twice: those stay.
pub(super) fn fold(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let (byte, after) = match rest {
            [b'%', high, low, after @ ..] => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) if !matches!(high << 4 | low, b'/' | b'\\' | b'%') => {
                    (high << 4 | low, after)
                }
                _ => (*first, tail),
            },
            _ => (*first, tail),
        };
        bytes.push(byte);
        rest = after;
    }
    let decoded = String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned());
    decoded
        .chars()
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase)
        .collect()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}
