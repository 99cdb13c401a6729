//! Renews sessions that the gateway keeps for the streams that are open in them.

use super::live;
use crate::authn::Memory;
use crate::exchange::Verified;
use crate::snapshot::Snapshot;
use crate::token::Renewer;
use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use std::fmt;
use std::sync::{Arc, Weak};

/// Does it by the configuration in force.
pub struct Keeper(Weak<ArcSwap<Snapshot>>);

impl Keeper {
    /// By this configuration, for as long as it is somebody's.
    pub fn new(current: &Arc<ArcSwap<Snapshot>>) -> Self {
        Self(Arc::downgrade(current))
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keeper")
    }
}

impl Renewer for Keeper {
    fn renew(&self, newest: Arc<Verified>) -> BoxFuture<'static, Option<u64>> {
        let current = self.0.upgrade();
        Box::pin(async move {
            let (snapshot, id) = (current?.load_full(), newest.kept.as_ref()?);
            let memory = Memory::default();
            live::keeper(&snapshot, &memory).keep(id).await
        })
    }
}
