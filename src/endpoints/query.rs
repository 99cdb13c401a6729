//! Parameters of a query, decoded once (`application/x-www-form-urlencoded`, as browsers write them).

use crate::exchange::{Code, Reject};
use url::form_urlencoded;

/// What a query says under one name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parameter {
    Absent,
    Once(String),
    /// More than once, or not in UTF-8: two readers could see two values.
    Garbled,
}

/// The parameter of this name.
pub(super) fn parameter(query: Option<&str>, name: &str) -> Parameter {
    let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let mut values = pairs.filter(|(found, _)| found == name);
    match (values.next(), values.next()) {
        (None, _) => Parameter::Absent,
        (Some((_, value)), None) if !is_garbled(&value) => Parameter::Once(value.into_owned()),
        _ => Parameter::Garbled,
    }
}

/// Whether a decoded text holds what stands for bytes that are no UTF-8. Nobody types that character.
pub(super) fn is_garbled(text: &str) -> bool {
    text.contains(char::REPLACEMENT_CHARACTER)
}

impl Parameter {
    /// The value. `None`: there is none, or it is empty.
    pub(super) fn only(self, name: &str) -> Result<Option<String>, Reject> {
        match self {
            Self::Absent => Ok(None),
            Self::Once(value) => Ok(Some(value).filter(|value| !value.is_empty())),
            Self::Garbled => Err(Reject::new(
                Code::BadRequest,
                format!("Say `{name}` once, in UTF-8."),
            )),
        }
    }

    /// The value, where one that has two readings is none.
    pub(super) fn plain(self) -> Option<String> {
        match self {
            Self::Once(value) => Some(value),
            Self::Absent | Self::Garbled => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_decoded_once_and_has_one_value() {
        let check = |query: &str, expected: Parameter| {
            assert_eq!(parameter(Some(query), "a"), expected, "{query}");
        };
        let once = |value: &str| Parameter::Once(value.to_owned());
        check("", Parameter::Absent);
        check("b=1&aa=2", Parameter::Absent);
        check("a", once(""));
        check("b=1&a=x%2Fy+z&c", once("x/y z"));
        check("a=%252F", once("%2F"));
        check("%61=1", once("1"));
        check("a=%zz", once("%zz"));
        check("a=1&a=1", Parameter::Garbled);
        check("a=1&%61=2", Parameter::Garbled);
        check("a=%FF", Parameter::Garbled);
        assert_eq!(parameter(None, "a"), Parameter::Absent);
        assert!(Parameter::Garbled.only("a").is_err());
        assert_eq!(once("").only("a").unwrap(), None);
    }
}
