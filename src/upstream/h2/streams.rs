//! The HTTP/2 connections of one worker to one upstream: few for each endpoint, many streams on each. Requests that find
//! no room share the dial of another connection; when there may be no other, they are refused, as for `max_in_flight`.

use super::link::{Link, MAX_STREAMS};
use super::seat::Seat;
use super::wire;
use crate::base::deadline::{Deadline, Elapsed};
use crate::config::upstream::Protocol;
use crate::upstream::pool::Home;
use parking_lot::Mutex;
use std::error::Error;
use std::fmt;
use std::io;
use std::sync::{Arc, Weak};
use tokio::sync::watch;

/// Connections to one endpoint, of one worker, that may be given requests: with all streams on each, 800 at once.
pub(super) const MAX_LINKS: usize = 8;

/// As many again may be there only to finish what they have: streams can last for hours, and a connection minutes. When there
/// are so many, old ones are given requests again, and without one of those the endpoint is full.
const MAX_FINISHING: usize = 128;

/// Deadlines kept for the next request.
const MAX_SPARES: usize = 256;

/// What became of a dial; `None` while it is under way.
type Outcome = Option<Result<(), Failed>>;

/// All connections of a worker to an upstream.
pub(in crate::upstream) struct Streams {
    /// For each endpoint.
    hubs: Box<[Mutex<Hub>]>,
    spares: Mutex<Vec<Deadline>>,
    /// Their answers are over, their uploads were not. As many as there are streams.
    settling: Mutex<Vec<Weak<Seat>>>,
}

/// The connections to one endpoint.
#[derive(Default)]
struct Hub {
    /// Those that may be given requests, and those that finish what they have.
    links: Vec<Arc<Link>>,
    /// Under way. Each belongs to its task: one that is gone has ended.
    dials: Vec<Weak<watch::Sender<Outcome>>>,
    /// Streams that the last connection had room for: so many requests wait for a dial before another is begun.
    expected: Option<usize>,
}

/// What a request finds.
enum Found {
    /// Room; it is taken.
    Room(Arc<Link>),
    /// A dial to wait for.
    Dial(watch::Receiver<Outcome>),
    /// Neither.
    Full,
    /// Neither, and a dial is no use.
    Without,
}

/// Why a request has no connection.
pub(super) enum NoRoom {
    /// Every connection that there may be has all the streams that it may have.
    Full,
    /// No connection could be made.
    Unreachable(io::Error),
}

impl NoRoom {
    fn without() -> Self {
        let why = "the upstream did not speak HTTP/2 a moment ago";
        Self::Unreachable(io::Error::new(io::ErrorKind::Unsupported, why))
    }
}

/// Why a dial failed, for each that waited for it.
#[derive(Clone, Debug)]
struct Failed(Arc<io::Error>);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Failed {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

impl Hub {
    /// Drops what is given no more requests and has none.
    fn tidy(&mut self, now: u64) {
        self.links.retain(|link| link.busy() || link.usable(now));
    }
}

impl Streams {
    pub(in crate::upstream) fn new(endpoints: usize) -> Self {
        Self {
            hubs: (0..endpoints).map(|_| Mutex::default()).collect(),
            spares: Mutex::default(),
            settling: Mutex::default(),
        }
    }

    /// Room for a stream to an endpoint, and whether a connection had it at once. Whoever gets it gives it back.
    ///
    /// Cancel-safe: a caller that goes away waits no more; the dial goes on for the others.
    pub(super) async fn room(
        home: &Arc<Home>,
        at: usize,
        deadline: &Deadline,
    ) -> Result<(Arc<Link>, bool), NoRoom> {
        let mut dial = match Self::look(home, at) {
            Found::Room(link) => {
                home.gauges.found();
                return Ok((link, true));
            }
            Found::Full => return Err(NoRoom::Full),
            Found::Without => return Err(NoRoom::without()),
            Found::Dial(dial) => dial,
        };
        let wait = async {
            for _ in 0..MAX_LINKS {
                let failed = match dial.wait_for(Option::is_some).await.as_deref() {
                    Ok(Some(Err(failed))) => Some(failed.clone()),
                    Ok(_) => None,
                    // Its task was taken away with the runtime.
                    Err(_) => {
                        return Err(NoRoom::Unreachable(io::ErrorKind::ConnectionAborted.into()));
                    }
                };
                if let Some(failed) = failed {
                    let error = io::Error::new(failed.0.kind(), failed);
                    return Err(NoRoom::Unreachable(error));
                }
                // It may have less room than there were waiting.
                match Self::look(home, at) {
                    Found::Room(link) => return Ok((link, false)),
                    Found::Full => return Err(NoRoom::Full),
                    Found::Without => return Err(NoRoom::without()),
                    Found::Dial(next) => dial = next,
                }
            }
            let ended = "the upstream closed every connection as soon as it was made";
            let ended = io::Error::new(io::ErrorKind::ConnectionReset, ended);
            Err(NoRoom::Unreachable(ended))
        };
        match deadline.within(home.core.connect_timeout, wait).await {
            Ok(found) => found,
            Err(Elapsed) => Err(NoRoom::Unreachable(io::ErrorKind::TimedOut.into())),
        }
    }

    fn look(home: &Arc<Home>, at: usize) -> Found {
        let now = home.sweeper.coarse_millis();
        let mut hub = home.streams.hubs[at].lock();
        hub.tidy(now);
        let usable = hub.links.iter().filter(|link| link.usable(now)).count();
        let crowded = hub.links.len() - usable >= MAX_FINISHING;
        let fits = hub
            .links
            .iter()
            .filter(|link| link.fits() && (link.usable(now) || (crowded && link.takes())));
        if let Some(link) = fits.min_by_key(|link| link.streams()) {
            link.enter();
            return Found::Room(link.clone());
        }
        hub.dials.retain(|dial| dial.strong_count() > 0);
        let expected = hub.expected.unwrap_or(MAX_STREAMS);
        let mut under_way = hub.dials.iter().filter_map(Weak::upgrade);
        if let Some(dial) = under_way.find(|dial| dial.receiver_count() < expected) {
            return Found::Dial(dial.subscribe());
        }
        drop(under_way);
        if crowded || usable + hub.dials.len() >= MAX_LINKS {
            return Found::Full;
        }
        if home.core.endpoints[at].is_without_h2(home.core.millis()) {
            return Found::Without;
        }
        Found::Dial(Self::dial(home, at, &mut hub))
    }

    /// Begins a dial, in a task of its own: many wait for it, and the first of them may go away.
    fn dial(home: &Arc<Home>, at: usize, hub: &mut Hub) -> watch::Receiver<Outcome> {
        let (tell, told) = watch::channel(None);
        let tell = Arc::new(tell);
        hub.dials.push(Arc::downgrade(&tell));
        let home = home.clone();
        tokio::spawn(async move {
            let endpoint = &home.core.endpoints[at];
            let patience = home.core.connect_timeout;
            let deadline = home.streams.deadline(&home);
            let mut met = false;
            let dialling = async {
                let socket = wire::connect(endpoint.address(), patience).await?;
                met = true;
                wire::greet(socket).await
            };
            let dialled = deadline
                .within(patience, dialling)
                .await
                .unwrap_or_else(|Elapsed| Err(io::ErrorKind::TimedOut.into()));
            home.streams.recycle(&deadline);
            let mut hub = home.streams.hubs[at].lock();
            let own = Arc::downgrade(&tell);
            hub.dials.retain(|dial| !dial.ptr_eq(&own));
            let outcome = match dialled {
                Ok(fresh) => {
                    endpoint.reached();
                    let link = Link::new(fresh, &home);
                    hub.expected = Some(link.capacity().max(1));
                    hub.links.push(Arc::new(link));
                    Ok(())
                }
                Err(error) => {
                    let now = home.core.millis();
                    let shown = wire::speaks_other(&error);
                    // Where HTTP/1.1 goes to the same address, what was tried for HTTP/2 must not turn it away.
                    if home.core.protocol == Protocol::Auto && (met || shown) {
                        endpoint.spoke_no_h2(now, shown);
                    } else {
                        endpoint.failed(now);
                    }
                    Err(Failed(Arc::new(error)))
                }
            };
            drop(hub);
            tell.send_replace(Some(outcome));
        });
        told
    }

    /// Closes a connection to an endpoint when its streams are over.
    pub(super) fn remove(&self, at: usize, gone: &Link) {
        self.hubs[at]
            .lock()
            .links
            .retain(|link| !std::ptr::eq(Arc::as_ptr(link), gone));
    }

    /// The answer of this one is over, its upload is not.
    pub(super) fn settles(&self, seat: &Arc<Seat>) {
        self.settling.lock().push(Arc::downgrade(seat));
    }

    /// Gives up those that settle, all or those that are overdue.
    fn settle(&self, all: bool) {
        // Not under the lock: a seat that is left looks at what there is here.
        let mut settling = std::mem::take(&mut *self.settling.lock());
        settling.retain(|seat| {
            let Some(seat) = seat.upgrade() else {
                return false;
            };
            let over = all || seat.overdue();
            if over {
                seat.cut();
            }
            !over
        });
        self.settling.lock().append(&mut settling);
    }

    /// Closes what is idle or old, as the streams on it end, and gives up what settles for longer than `settle`
    /// milliseconds.
    pub(in crate::upstream) fn reap(&self, now: u64, settle: u64) {
        self.settle(false);
        for hub in &self.hubs {
            let mut hub = hub.lock();
            hub.links.iter().for_each(|link| link.reap(now, settle));
            hub.tidy(now);
        }
    }

    /// Closes everything, as its streams end.
    pub(in crate::upstream) fn close(&self) {
        self.settle(true);
        for hub in &self.hubs {
            let links = std::mem::take(&mut hub.lock().links);
            links.iter().for_each(|link| link.close());
        }
    }

    /// A deadline, not armed.
    pub(super) fn deadline(&self, home: &Home) -> Deadline {
        let spare = self.spares.lock().pop();
        spare.unwrap_or_else(|| home.sweeper.deadline())
    }

    /// Takes back a deadline that nobody waits on.
    pub(super) fn recycle(&self, deadline: &Deadline) {
        deadline.disarm();
        let mut spares = self.spares.lock();
        if spares.len() < MAX_SPARES {
            spares.push(deadline.clone());
        }
    }
}
