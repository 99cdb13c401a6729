//! The who-am-I answer at a path of the operator's: `endpoint = "session"`.

use super::facts::Exchange;
use crate::base::body::Body;
use crate::exchange::{Code, Reject};
use crate::headers::security;
use crate::session::view::view;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response};

/// The caller, and by what kind of credential; 401 when there is none, as on an optional route.
pub(super) fn answer(ex: &Exchange) -> Result<Response<Body>, Reject> {
    let user = ex.user.as_ref().ok_or_else(nobody)?;
    let mut view = view(&user.identity);
    if let Some(view) = view.as_object_mut() {
        let credential = user.credential.as_str();
        view.insert("credential".to_owned(), credential.into());
    }
    let mut answer = Response::new(Body::full(view.to_string()));
    let headers = answer.headers_mut();
    security::own(headers);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(answer)
}

/// Why nobody is told anything.
pub(super) fn nobody() -> Reject {
    Reject::new(Code::MissingCredentials, "Nobody is signed in.")
}
