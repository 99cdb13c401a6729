//! Which address gets a request: the less busy of two drawn at random, the next in turn, or the one that a client's
//! address falls to (rendezvous hashing: when one is away, only its own clients move).

use super::endpoint::Endpoint;
use crate::config::upstream::Balance;
use std::net::IpAddr;

/// What a choice depends on, besides the endpoints.
pub(super) struct Draw<'a> {
    pub(super) balance: Balance,
    /// Any number; the next in a sequence for `round_robin`.
    pub(super) number: u64,
    pub(super) client: Option<IpAddr>,
    /// Endpoints that this request has failed to reach.
    pub(super) tried: &'a [usize],
    /// Whether it can only be sent in HTTP/2.
    pub(super) h2: bool,
    /// Milliseconds on the upstream's clock.
    pub(super) now: u64,
}

/// The endpoint to take; never one that was tried unless all were. Endpoints that refused a connection a moment ago, or
/// the protocol that is needed, are taken only when no other is left.
pub(super) fn pick(endpoints: &[Endpoint], draw: &Draw<'_>) -> usize {
    if endpoints.len() < 2 {
        return 0;
    }
    let untried = |at: usize| !draw.tried.contains(&at);
    choose(endpoints, draw, |at| {
        let endpoint = &endpoints[at];
        let willing = !draw.h2 || !endpoint.is_without_h2(draw.now);
        untried(at) && willing && !endpoint.rests(draw.now)
    })
    .or_else(|| choose(endpoints, draw, untried))
    .unwrap_or(0)
}

fn choose(endpoints: &[Endpoint], draw: &Draw<'_>, open: impl Fn(usize) -> bool) -> Option<usize> {
    let count = endpoints.len();
    match (draw.balance, draw.client) {
        (Balance::RoundRobin, _) => scan(count, draw.number as usize % count, &open),
        (Balance::HashIp, Some(client)) => {
            let key = address(client);
            (0..count)
                .filter(|&at| open(at))
                .max_by_key(|&at| mix(endpoints[at].seed() ^ key))
        }
        // A peer on a unix socket has no address to hash.
        (Balance::LeastRequests | Balance::HashIp, _) => {
            let (high, low) = ((draw.number >> 32) as usize, draw.number as u32 as usize);
            let first = scan(count, high % count, &open)?;
            let second = scan(count, (first + 1 + low % (count - 1)) % count, |at| {
                at != first && open(at)
            });
            Some(match second {
                Some(second) if endpoints[second].in_flight() < endpoints[first].in_flight() => {
                    second
                }
                _ => first,
            })
        }
    }
}

/// The first open one from `start` on, around.
fn scan(count: usize, start: usize, open: impl Fn(usize) -> bool) -> Option<usize> {
    (start..count).chain(0..start).find(|&at| open(at))
}

fn address(ip: IpAddr) -> u64 {
    match ip.to_canonical() {
        IpAddr::V4(ip) => mix(u64::from(u32::from(ip))),
        // By /64, as everywhere: one household, one client.
        IpAddr::V6(ip) => mix((u128::from(ip) >> 64) as u64),
    }
}

/// FNV-1a, 64 bit: the same in every process and version.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The finisher of SplitMix64: every bit of the input moves every bit of the output.
pub(super) fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::net::Ipv4Addr;

    fn endpoints(count: usize) -> Vec<Endpoint> {
        (0..count)
            .map(|at| {
                let path = ["/run/", &at.to_string()].concat();
                let configured = crate::config::value::Endpoint::Unix(path.into());
                Endpoint::new(&configured, None).unwrap()
            })
            .collect()
    }

    fn draw(balance: Balance, number: u64) -> Draw<'static> {
        Draw {
            balance,
            number,
            client: None,
            tried: &[],
            h2: false,
            now: 0,
        }
    }

    #[test]
    fn least_requests_takes_the_less_busy_of_two() {
        let endpoints = endpoints(2);
        endpoints[0].enter();
        for number in 0..100 {
            let picked = pick(&endpoints, &draw(Balance::LeastRequests, mix(number)));
            assert_eq!(picked, 1);
        }
    }

    #[test]
    fn least_requests_spreads_over_idle_endpoints_and_avoids_the_busiest() {
        let endpoints = endpoints(5);
        (0..9).for_each(|_| endpoints[3].enter());
        let mut counts = [0; 5];
        for number in 0..5_000 {
            counts[pick(&endpoints, &draw(Balance::LeastRequests, mix(number)))] += 1;
        }
        assert_eq!(counts[3], 0);
        for at in [0, 1, 2, 4] {
            assert!((900..1_600).contains(&counts[at]), "{counts:?}");
        }
    }

    #[test]
    fn round_robin_goes_around() {
        let endpoints = endpoints(3);
        let picked: Vec<_> = (0..6)
            .map(|number| pick(&endpoints, &draw(Balance::RoundRobin, number)))
            .collect();
        assert_eq!(picked, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn a_client_stays_where_it_is_and_only_clients_of_a_lost_endpoint_move() {
        let endpoints = endpoints(4);
        let client = |n: u32| Draw {
            client: Some(Ipv4Addr::from(n).into()),
            ..draw(Balance::HashIp, mix(u64::from(n)))
        };
        let mut counts: HashMap<usize, usize> = HashMap::new();
        for n in 0..1_000 {
            let home = pick(&endpoints, &client(n));
            *counts.entry(home).or_default() += 1;
            let again = Draw {
                number: 7,
                ..client(n)
            };
            assert_eq!(pick(&endpoints, &again), home);
            let without_two = Draw {
                tried: &[2],
                ..client(n)
            };
            let moved = pick(&endpoints, &without_two);
            assert!(moved != 2 && (home == 2 || moved == home));
        }
        assert!(
            counts.values().all(|n| (150..350).contains(n)),
            "{counts:?}"
        );
    }

    #[test]
    fn what_was_tried_or_rests_is_passed_over_while_another_is_left() {
        for balance in [Balance::LeastRequests, Balance::RoundRobin, Balance::HashIp] {
            let endpoints = endpoints(3);
            endpoints[0].failed(0);
            for number in 0..50 {
                let one_left = Draw {
                    tried: &[1],
                    now: 10,
                    ..draw(balance, mix(number))
                };
                assert_eq!(pick(&endpoints, &one_left), 2);
                let only_the_resting = Draw {
                    tried: &[1, 2],
                    now: 10,
                    ..draw(balance, mix(number))
                };
                assert_eq!(pick(&endpoints, &only_the_resting), 0);
            }
        }
    }

    #[test]
    fn endpoints_without_http_2_are_passed_over_by_what_needs_it_and_by_nothing_else() {
        for balance in [Balance::LeastRequests, Balance::RoundRobin, Balance::HashIp] {
            let endpoints = endpoints(2);
            endpoints[0].spoke_no_h2(0, true);
            let draws = |h2: bool| {
                let draw = move |number| Draw {
                    h2,
                    now: 10,
                    ..draw(balance, mix(number))
                };
                (0..50).map(draw)
            };
            assert!(draws(true).all(|draw| pick(&endpoints, &draw) == 1));
            assert!(draws(false).any(|draw| pick(&endpoints, &draw) == 0));
        }
    }
}
