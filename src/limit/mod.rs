//! Rate limits: which policies a request meets, whose budget it draws on, what is left. Refusals are data here; only
//! `exchange::Reject` knows their status. Budgets live in `local`.

mod answer;
mod key;
pub mod local;

use crate::base::clock::Clock;
use crate::config::rate_limit::{AppliesTo, Count, RateLimit};
use crate::config::route::RouteLimits;
use crate::config::server::RateLimitHeaders;
use crate::config::value::{LimitBy, Rate};
use http::{HeaderName, HeaderValue};
use local::{Budget, Key, Left};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

pub use key::{Who, keyed};

/// How many times its own rate all values of a header from one untrusted address may take together: who makes values
/// up gets this much and no more.
const INVENTED_VALUES: u32 = 16;

/// Every policy of a configuration. Indexes are those of `Config::rate_limits`.
#[derive(Debug)]
pub struct Limits {
    policies: Vec<Arc<Policy>>,
}

#[derive(Debug)]
struct Policy {
    config: RateLimit,
    /// `None`: `"off"`.
    active: Option<Active>,
}

#[derive(Debug)]
struct Active {
    budget: Budget,
    /// By address alone, for policies by header.
    ceiling: Option<Budget>,
    answer: answer::Answer,
}

/// The policies of one route, compiled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteLists {
    /// By address and header: before any cryptography.
    pub before: Box<[usize]>,
    /// By user, key and claim.
    pub after: Box<[usize]>,
    /// Policies that count credentials which did not verify.
    pub failures: Box<[usize]>,
    /// By the account that a login names: when its body is known.
    pub account: Box<[usize]>,
}

/// What kind of route asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Not public.
    pub protected: bool,
    /// A session endpoint that tries secrets.
    pub login: bool,
}

/// Where a client stands with one policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Index of the policy.
    pub policy: usize,
    /// How many may come at once when the budget is whole.
    pub limit: u32,
    /// How many more may come now.
    pub remaining: u32,
    /// Seconds until the budget is whole again; at least 1.
    pub reset_secs: u32,
}

/// A refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Index of the policy.
    pub policy: usize,
    /// Whole seconds for `Retry-After`; at least 1.
    pub retry_after: u32,
}

/// What the policies of a list say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The refusing policy, or the one with the smallest share left.
    pub tightest: Option<Standing>,
    /// The first policy that refuses.
    pub refused: Option<Refused>,
}

impl Outcome {
    /// Both lists of a request as one answer: the earlier refusal, else the tighter budget.
    #[must_use]
    pub fn and(self, later: Self) -> Self {
        if self.refused.is_some() {
            return self;
        }
        let tightest = match (self.tightest, later.tightest) {
            (Some(a), Some(b)) if later.refused.is_none() => {
                Some(if b.tighter(&a) { b } else { a })
            }
            (a, b) => b.or(a),
        };
        Self {
            tightest,
            refused: later.refused,
        }
    }
}

impl Standing {
    /// Smaller share, compared as fractions.
    fn tighter(&self, than: &Self) -> bool {
        u64::from(self.remaining) * u64::from(than.limit)
            < u64::from(than.remaining) * u64::from(self.limit)
    }
}

impl Limits {
    /// Compiles the policies; those that did not change keep their budgets.
    pub fn compile(policies: &[RateLimit], clock: &Clock, previous: Option<&Self>) -> Self {
        let policies = policies
            .iter()
            .map(|config| {
                let kept =
                    previous.and_then(|p| p.policies.iter().find(|old| old.config == *config));
                kept.cloned()
                    .unwrap_or_else(|| Arc::new(Policy::new(config, clock)))
            })
            .collect();
        Self { policies }
    }

    /// The policies that a route meets: those it names and those that apply anyway, each once.
    pub fn for_route(&self, limits: &RouteLimits, place: Place) -> RouteLists {
        let RouteLimits::Add(named) = limits else {
            return RouteLists::default();
        };
        let (mut before, mut after) = (Vec::new(), Vec::new());
        let (mut failures, mut account) = (Vec::new(), Vec::new());
        for (at, policy) in self.policies.iter().enumerate() {
            let applies = named.contains(&at)
                || match policy.config.applies_to {
                    AppliesTo::Named => false,
                    AppliesTo::Protected => place.protected,
                    AppliesTo::All => true,
                    AppliesTo::Login => place.login,
                };
            if !applies || policy.active.is_none() {
                continue;
            }
            match policy.config.count {
                Count::Failures => failures.push(at),
                Count::Requests if policy.by_account() => account.push(at),
                Count::Requests if policy.needs_identity() => after.push(at),
                Count::Requests => before.push(at),
            }
        }
        RouteLists {
            before: before.into(),
            after: after.into(),
            failures: failures.into(),
            account: account.into(),
        }
    }

    /// Takes one from every policy of `list`, also when an earlier one refuses.
    pub fn check(&self, list: &[usize], who: &Who<'_>) -> Outcome {
        let mut outcome = Outcome::default();
        for &policy in list {
            if let Some((active, config)) = self.active(policy)
                && !who.is_nowhere(&config.by)
            {
                outcome = outcome.and(active.take(policy, &config.by, who));
            }
        }
        outcome
    }

    /// Takes one from every policy of `list`, also when an earlier one refuses, for the account that a login names: the
    /// caller's text, in which the same account is always spelt the same.
    pub fn check_account(&self, list: &[usize], account: &str) -> Outcome {
        let key = key::of_account(account);
        let mut outcome = Outcome::default();
        for &policy in list {
            if let Some((active, _)) = self.active(policy) {
                outcome = outcome.and(active.outcome(policy, active.budget.take(&key), None));
            }
        }
        outcome
    }

    /// Whether too many credentials of this client did not verify. Takes nothing: asked before any cryptography.
    pub fn failures_blocked(&self, list: &[usize], who: &Who<'_>) -> Option<Refused> {
        list.iter().find_map(|&policy| {
            let (active, config) = self
                .active(policy)
                .filter(|(_, config)| !who.is_nowhere(&config.by))?;
            let wait = active.budget.empty_for(&who.key(&config.by));
            let over = active
                .ceiling_of(who)
                .and_then(|(ceiling, key)| ceiling.empty_for(&key));
            let retry_after = secs(wait.max(over)?);
            Some(Refused {
                policy,
                retry_after,
            })
        })
    }

    /// A credential of this client did not verify (never one that is merely over).
    pub fn failure(&self, list: &[usize], who: &Who<'_>) {
        self.check(list, who);
    }

    /// Writes the response headers of the tightest budget.
    pub fn write_headers(
        &self,
        outcome: &Outcome,
        style: RateLimitHeaders,
        out: &mut Vec<(HeaderName, HeaderValue)>,
    ) {
        if let Some(standing) = outcome.tightest
            && let Some((active, _)) = self.active(standing.policy)
        {
            active
                .answer
                .write(standing.remaining, standing.reset_secs, style, out);
        }
    }

    /// The policy's name, for the log.
    pub fn name(&self, policy: usize) -> &str {
        self.policies.get(policy).map_or("", |p| &p.config.name)
    }

    /// Forgets who has a whole budget. To be called every few seconds.
    pub fn sweep(&self) {
        for active in self.policies.iter().filter_map(|p| p.active.as_ref()) {
            active.budget.sweep();
            if let Some(ceiling) = &active.ceiling {
                ceiling.sweep();
            }
        }
    }

    /// Keys kept now, over all policies.
    pub fn keys(&self) -> usize {
        let active = self.policies.iter().filter_map(|p| p.active.as_ref());
        active
            .map(|a| a.budget.keys() + a.ceiling.as_ref().map_or(0, Budget::keys))
            .sum()
    }

    fn active(&self, policy: usize) -> Option<(&Active, &RateLimit)> {
        let policy = self.policies.get(policy)?;
        Some((policy.active.as_ref()?, &policy.config))
    }
}

impl Policy {
    fn new(config: &RateLimit, clock: &Clock) -> Self {
        let active = config.rate.map(|rate| {
            let budget = Budget::new(rate, config.burst, clock);
            let by_header = config.by.iter().any(|by| matches!(by, LimitBy::Header(_)));
            let wide = by_header.then(|| {
                let many = NonZeroU32::MIN.saturating_add(INVENTED_VALUES - 1);
                let rate = Rate {
                    count: rate.count.saturating_mul(many),
                    per: rate.per,
                };
                Budget::new(rate, config.burst.saturating_mul(many), clock)
            });
            Active {
                answer: answer::Answer::new(&config.name, budget.burst(), budget.window_secs()),
                budget,
                ceiling: wide,
            }
        });
        Self {
            config: config.clone(),
            active,
        }
    }

    fn needs_identity(&self) -> bool {
        let identity =
            |by: &LimitBy| matches!(by, LimitBy::User | LimitBy::ApiKey | LimitBy::Claim(_));
        self.config.by.iter().any(identity)
    }

    fn by_account(&self) -> bool {
        self.config.by.contains(&LimitBy::Account)
    }
}

impl Active {
    fn take(&self, policy: usize, by: &[LimitBy], who: &Who<'_>) -> Outcome {
        let own = self.budget.take(&who.key(by));
        let over = self
            .ceiling_of(who)
            .and_then(|(ceiling, key)| ceiling.take(&key).err());
        self.outcome(policy, own, over)
    }

    /// What came of taking one: from its own budget, and from the one that holds besides.
    fn outcome(
        &self,
        policy: usize,
        own: Result<Left, Duration>,
        over: Option<Duration>,
    ) -> Outcome {
        let limit = self.budget.burst();
        let wait = match (own, over) {
            (Ok(left), None) => {
                return Outcome {
                    tightest: Some(Standing {
                        policy,
                        limit,
                        remaining: left.remaining,
                        reset_secs: left.whole_in_secs,
                    }),
                    refused: None,
                };
            }
            (own, over) => own.err().max(over).unwrap_or_default(),
        };
        Outcome {
            tightest: Some(Standing {
                policy,
                limit,
                remaining: 0,
                reset_secs: self.budget.window_secs(),
            }),
            refused: Some(Refused {
                policy,
                retry_after: secs(wait),
            }),
        }
    }

    /// The budget by address that holds besides, when the peer may invent what the key is made of.
    fn ceiling_of(&self, who: &Who<'_>) -> Option<(&Budget, Key)> {
        let ceiling = self.ceiling.as_ref().filter(|_| !who.peer_trusted)?;
        Some((ceiling, who.address()))
    }
}

/// Whole seconds, rounded up, at least 1: earlier would be refused again.
fn secs(wait: Duration) -> u32 {
    u32::try_from(wait.as_nanos().div_ceil(1_000_000_000))
        .unwrap_or(u32::MAX)
        .max(1)
}

#[cfg(test)]
mod tests;
