//! Sessions that we keep go on without their browser, for as long as something is open that belongs to them.

use super::prove::{Asked, Prover, Unproven};
use super::session::Request;
use crate::base::secret::Secret;
use crate::exchange::Credential;
use crate::headers::forwarded::Client;
use crate::session::Told;
use http::HeaderMap;
use std::net::{IpAddr, Ipv4Addr};

impl Prover<'_> {
    /// Renews the session of this id when it is time for that; when its token is over, in Unix seconds. `None`: it is over,
    /// or cannot be renewed now.
    pub async fn keep(&self, id: &Secret<String>) -> Option<u64> {
        let session = self.session?;
        let brought = session.recall(id).await.ok()??;
        let asked = Asked::of(session, &brought.access_token, u64::MAX).kept(Some(id));
        let proven: Result<_, Unproven> = self.verify(asked, Credential::Session, None).await;
        let (headers, nobody) = (
            HeaderMap::new(),
            Client::at(IpAddr::V4(Ipv4Addr::UNSPECIFIED), false),
        );
        let from = Request {
            headers: &headers,
            client: &nobody,
        };
        // There is nobody to tell, and nothing to tell: the id stays what it is.
        let mut told = Told::default();
        let before = self
            .before(session, &brought, proven, from, &mut told)
            .ok()?;
        let gone_on = self.go_on(session, &brought, before, from, &mut told).await;
        gone_on.ok().map(|verified| verified.identity.expires_at)
    }
}
