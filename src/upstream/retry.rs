//! What became of a try: whether it may be made again, and what the gateway is told when not. A request is repeated
//! only if no byte of it was written anywhere; then any method may be.

use crate::base::body::BodyError;
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Why there is no answer from an upstream.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// No connection, or it ended before a byte of the request was written.
    #[error("upstream {address} cannot be reached")]
    Unreachable {
        /// The endpoint tried last.
        address: Arc<str>,
        /// What the system, the resolver, TLS or hyper said.
        #[source]
        source: io::Error,
    },
    /// The answer is not HTTP, or it ended early.
    #[error("upstream {address} broke the protocol")]
    Protocol {
        /// The endpoint.
        address: Arc<str>,
        /// What is wrong with it.
        #[source]
        source: Fault,
    },
    /// No response head in time.
    #[error("upstream {address} did not answer in time")]
    Timeout {
        /// The endpoint.
        address: Arc<str>,
    },
    /// The request was not tried.
    #[error("upstream `{upstream}` is not available")]
    Unavailable {
        /// Its name.
        upstream: Arc<str>,
        /// Why.
        #[source]
        reason: Unavailable,
    },
    /// The client's body, not the upstream, ended the request.
    #[error("the request body failed")]
    RequestBody(#[source] BodyFault),
}

/// What was wrong with an answer.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// hyper could not read it, or the connection ended.
    #[error(transparent)]
    Http(hyper::Error),
    /// 101 without having been asked for that protocol (RFC 9110 §7.8).
    #[error("it switched protocols without being asked")]
    UnaskedUpgrade,
    /// More than one length, or a list of them (RFC 9112 §6.3).
    #[error("it has several content lengths")]
    Lengths,
    /// Anything but `chunked`; no other coding was asked for (RFC 9112 §7).
    #[error("it has a transfer coding other than `chunked`")]
    TransferCoding,
}

/// Why a request was not tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// `max_in_flight` requests are under way, or all the HTTP/2 streams that there may be.
    #[error("as many requests are under way as there may be at once")]
    Full,
}

/// What was wrong with a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyFault {
    /// More bytes than the limit allows.
    #[error("it is larger than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// Nothing, or too little, came in time.
    #[error("it came too slowly")]
    Stalled,
    /// The client ended it early or broke the framing.
    #[error("it was cut short")]
    Cut,
}

impl BodyFault {
    pub(super) fn of(error: &BodyError) -> Self {
        match error {
            BodyError::TooLarge { limit } => Self::TooLarge { limit: *limit },
            BodyError::Stalled => Self::Stalled,
            BodyError::Cut(_) | BodyError::Abandoned | BodyError::Withdrawn => Self::Cut,
        }
    }
}

impl SendError {
    /// Whether a byte of the request may have reached an upstream. If not, it may be repeated.
    pub fn forwarded(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Unavailable { .. } => false,
            // Where hyper had the head in its buffer when the body failed, nobody can tell any more.
            Self::Protocol { .. } | Self::Timeout { .. } | Self::RequestBody(_) => true,
        }
    }

    /// The error of a request that was, at least in part, written: the client's doing or the upstream's?
    pub(super) fn of(error: hyper::Error, address: &Arc<str>) -> Self {
        let mut cause = error.source();
        while let Some(inner) = cause {
            if let Some(body) = inner.downcast_ref::<BodyError>() {
                return Self::RequestBody(BodyFault::of(body));
            }
            cause = inner.source();
        }
        Self::Protocol {
            address: address.clone(),
            source: Fault::Http(error),
        }
    }
}

/// Fifths of a retry that are saved up at most: a hundred retries.
const LEVEL_MAX: u32 = 500;
/// Fifths that a retry costs; a request brings one, so retries are at most 20 % of the traffic.
const COST: u32 = 5;
/// Retries a second that are free, so that little traffic has some too.
const FLOOR: u32 = 2;

/// How many retries the traffic of one worker to one upstream has earned. Keeps an upstream that is down from
/// getting twice the load.
#[derive(Debug, Default)]
pub(super) struct Budget {
    level: AtomicU32,
    /// The second in which `free` were used.
    second: AtomicU64,
    free: AtomicU32,
}

impl Budget {
    /// A request came. Only one worker does this, so that a plain load and store is enough.
    pub(super) fn deposit(&self) {
        let level = self.level.load(Ordering::Relaxed);
        if level < LEVEL_MAX {
            self.level.store(level + 1, Ordering::Relaxed);
        }
    }

    /// Whether a retry may be made at `now` (milliseconds), and takes it if so.
    pub(super) fn withdraw(&self, now: u64) -> bool {
        let level = self.level.load(Ordering::Relaxed);
        if level >= COST {
            self.level.store(level - COST, Ordering::Relaxed);
            return true;
        }
        let second = now / 1000 + 1;
        if self.second.swap(second, Ordering::Relaxed) != second {
            self.free.store(0, Ordering::Relaxed);
        }
        self.free.fetch_add(1, Ordering::Relaxed) < FLOOR
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_fifth_of_the_traffic_and_a_few_a_second() {
        let budget = Budget::default();
        (0..50).for_each(|_| budget.deposit());
        let granted = (0..40).filter(|_| budget.withdraw(100)).count();
        assert_eq!(granted, 10 + FLOOR as usize);
        assert!(!budget.withdraw(999));
        assert!(budget.withdraw(1_000));
    }

    #[test]
    fn quiet_hours_do_not_save_up_a_storm() {
        let budget = Budget::default();
        (0..100_000).for_each(|_| budget.deposit());
        let granted = (0..1_000).filter(|_| budget.withdraw(0)).count();
        assert_eq!(granted, (LEVEL_MAX / COST + FLOOR) as usize);
    }
}
