//! What logins may take of the provider's own limits, so that refreshes always find something left: providers count by
//! address, and the whole gateway is one. Refreshes take nothing here.

use crate::base::clock::Clock;
use crate::config::value::Rate;
use crate::limit::local::{Budget, Key};
use std::num::NonZeroU32;
use std::time::Duration;

/// Most calls at once, whatever the rate. Supabase's bucket for tokens, which refreshes draw on as well, holds 30.
const BURST_MAX: NonZeroU32 = NonZeroU32::MIN.saturating_add(19);
const FIVE_MINUTES: Duration = Duration::from_secs(300);

/// What a call is for: each has a bucket of its own, as it has at the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A password, or the code of a login elsewhere, for a session. Drawn from `login`: at the provider these share one
    /// limit with refreshes.
    Login,
    /// Something that sends a message: sign-up, one-time code. Drawn from `otp`.
    Send,
    /// A code that was sent, for a session. As many as `otp`, counted apart.
    Check,
}

/// `session.provider_budget`: one for each provider, shared by all who log in, to be kept over reloads.
#[derive(Debug)]
pub struct ProviderBudget {
    login: Budget,
    otp: Budget,
}

impl ProviderBudget {
    /// `login` and `otp` of the configuration. At most 20 come at once.
    pub fn new(login: Rate, otp: Rate, clock: &Clock) -> Self {
        let budget = |rate: Rate| Budget::new(rate, rate.count.min(BURST_MAX), clock);
        Self {
            login: budget(login),
            otp: budget(otp),
        }
    }

    /// 60 logins and 20 codes in 5 minutes.
    pub fn standard(clock: &Clock) -> Self {
        let rate = |count: u32| Rate {
            count: NonZeroU32::MIN.saturating_add(count - 1),
            per: FIVE_MINUTES,
        };
        Self::new(rate(60), rate(20), clock)
    }

    /// Takes one; the error says when the next may be taken.
    pub fn take(&self, purpose: Purpose) -> Result<(), Duration> {
        let (budget, exact) = match purpose {
            Purpose::Login => (&self.login, 0),
            Purpose::Send => (&self.otp, 0),
            Purpose::Check => (&self.otp, 1),
        };
        budget.take(&Key { exact, coarse: 0 }).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `asked` calls pass.
    fn passed(budget: &ProviderBudget, purpose: Purpose, asked: usize) -> usize {
        (0..asked).filter(|_| budget.take(purpose).is_ok()).count()
    }

    #[test]
    fn twenty_come_at_once_and_then_as_the_rate_says() {
        let clock = Clock::frozen(1_700_000_000);
        let budget = ProviderBudget::standard(&clock);
        assert_eq!(passed(&budget, Purpose::Login, 100), 20);
        assert_eq!(budget.take(Purpose::Login), Err(Duration::from_secs(5)));
        let mut calls = 0;
        for _ in 0..60 {
            clock.advance(Duration::from_secs(5));
            calls += passed(&budget, Purpose::Login, 3);
        }
        assert_eq!(calls, 60);
    }

    #[test]
    fn a_small_budget_is_spent_as_written() {
        let rate = |count, secs| Rate {
            count: NonZeroU32::new(count).unwrap(),
            per: Duration::from_secs(secs),
        };
        let clock = Clock::frozen(1_700_000_000);
        let budget = ProviderBudget::new(rate(3, 300), rate(2, 300), &clock);
        assert_eq!(passed(&budget, Purpose::Login, 10), 3);
        assert_eq!(passed(&budget, Purpose::Send, 10), 2);
        assert_eq!(passed(&budget, Purpose::Check, 10), 2);
        assert_eq!(budget.take(Purpose::Login), Err(Duration::from_secs(100)));
        assert_eq!(budget.take(Purpose::Send), Err(Duration::from_secs(150)));
    }
}
