//! Policies as a client meets them.

use super::*;
use http::HeaderMap;
use std::net::IpAddr;

fn policy(name: &str, count: u32, secs: u64, by: LimitBy) -> RateLimit {
    let count = NonZeroU32::new(count).unwrap();
    RateLimit {
        name: name.into(),
        rate: Some(Rate {
            count,
            per: Duration::from_secs(secs),
        }),
        burst: count,
        by: vec![by],
        applies_to: AppliesTo::Named,
        count: Count::Requests,
    }
}

struct Client {
    ip: IpAddr,
    headers: HeaderMap,
    trusted: bool,
}

impl Client {
    fn at(ip: &str) -> Self {
        Self {
            ip: ip.parse().unwrap(),
            headers: HeaderMap::new(),
            trusted: false,
        }
    }

    fn who(&self) -> Who<'_> {
        Who {
            client: self.ip,
            peer_trusted: self.trusted,
            headers: &self.headers,
            verified: None,
        }
    }

    fn tenant(&mut self, name: &str) -> Who<'_> {
        self.headers
            .insert("x-tenant", HeaderValue::from_str(name).unwrap());
        self.who()
    }
}

fn clock() -> Clock {
    Clock::frozen(1_700_000_000)
}

#[test]
fn over_the_limit_a_client_is_told_when_to_come_back() {
    let clock = clock();
    let limits = Limits::compile(&[policy("per_ip", 60, 60, LimitBy::Ip)], &clock, None);
    let client = Client::at("192.0.2.1");
    let first = limits.check(&[0], &client.who());
    assert_eq!(
        first.tightest,
        Some(Standing {
            policy: 0,
            limit: 60,
            remaining: 59,
            reset_secs: 1
        })
    );
    for _ in 1..60 {
        assert_eq!(limits.check(&[0], &client.who()).refused, None);
    }
    clock.advance(Duration::from_millis(300));
    let over = limits.check(&[0], &client.who());
    assert_eq!(
        over.refused,
        Some(Refused {
            policy: 0,
            retry_after: 1
        })
    );
    let mut headers = Vec::new();
    limits.write_headers(&over, RateLimitHeaders::Draft, &mut headers);
    assert_eq!(headers[0].1, "\"per_ip\";q=60;w=60");
    assert_eq!(headers[1].1, "\"per_ip\";r=0;t=60");
    assert_eq!(
        limits.check(&[0], &Client::at("192.0.2.2").who()).refused,
        None
    );
}

#[test]
fn retry_after_is_never_too_early_and_never_zero() {
    let check = |ms, expected| assert_eq!(secs(Duration::from_millis(ms)), expected);
    check(0, 1);
    check(1, 1);
    check(1000, 1);
    check(1001, 2);
    assert_eq!(secs(Duration::from_nanos(1_000_000_001)), 2);
    assert_eq!(secs(Duration::MAX), u32::MAX);
}

#[test]
fn all_policies_of_a_list_count_and_the_first_refusal_wins() {
    let policies = [
        policy("wide", 100, 60, LimitBy::Ip),
        policy("narrow", 2, 60, LimitBy::Ip),
        policy("last", 3, 600, LimitBy::Ip),
    ];
    let limits = Limits::compile(&policies, &clock(), None);
    let client = Client::at("192.0.2.1");
    let all = [0, 1, 2];
    // 1 of 2 is less than 2 of 3.
    assert_eq!(
        limits.check(&all, &client.who()).tightest.unwrap().policy,
        1
    );
    limits.check(&all, &client.who());
    let over = limits.check(&all, &client.who());
    assert_eq!(
        over.refused,
        Some(Refused {
            policy: 1,
            retry_after: 30
        })
    );
    assert_eq!(over.tightest.unwrap().policy, 1);
    // The third has counted the refused request as well.
    assert_eq!(
        limits.check(&[2], &client.who()).refused,
        Some(Refused {
            policy: 2,
            retry_after: 200
        })
    );
    assert_eq!(limits.check(&[], &client.who()), Outcome::default());
    assert_eq!(limits.name(1), "narrow");
}

#[test]
fn an_earlier_list_that_refuses_is_the_answer() {
    let refused = |policy| Outcome {
        tightest: Some(Standing {
            policy,
            limit: 1,
            remaining: 0,
            reset_secs: 1,
        }),
        refused: Some(Refused {
            policy,
            retry_after: 1,
        }),
    };
    let fine = |policy, remaining| Outcome {
        tightest: Some(Standing {
            policy,
            limit: 10,
            remaining,
            reset_secs: 1,
        }),
        refused: None,
    };
    assert_eq!(refused(0).and(refused(1)), refused(0));
    assert_eq!(fine(0, 0).and(refused(1)), refused(1));
    assert_eq!(fine(0, 3).and(fine(1, 2)), fine(1, 2));
    assert_eq!(fine(0, 2).and(fine(1, 2)), fine(0, 2));
    assert_eq!(fine(0, 2).and(Outcome::default()), fine(0, 2));
}

#[test]
fn thirty_bad_credentials_a_minute_are_judged_and_the_next_is_not() {
    let clock = clock();
    let mut config = policy("failures", 30, 60, LimitBy::Ip);
    config.count = Count::Failures;
    let limits = Limits::compile(&[config], &clock, None);
    let (bad, good) = (Client::at("192.0.2.1"), Client::at("192.0.2.2"));
    for _ in 0..30 {
        assert_eq!(limits.failures_blocked(&[0], &bad.who()), None);
        limits.failure(&[0], &bad.who());
    }
    let blocked = Some(Refused {
        policy: 0,
        retry_after: 2,
    });
    assert_eq!(limits.failures_blocked(&[0], &bad.who()), blocked);
    assert_eq!(limits.failures_blocked(&[0], &bad.who()), blocked);
    assert_eq!(limits.failures_blocked(&[0], &good.who()), None);
    clock.advance(Duration::from_secs(2));
    assert_eq!(limits.failures_blocked(&[0], &bad.who()), None);
    limits.failure(&[0], &bad.who());
    assert_eq!(limits.failures_blocked(&[0], &bad.who()), blocked);
}

#[test]
fn who_invents_header_values_gets_sixteen_budgets_and_no_more() {
    let tenant = || LimitBy::Header(HeaderName::from_static("x-tenant"));
    let limits = Limits::compile(&[policy("tenant", 2, 60, tenant())], &clock(), None);
    let mut stranger = Client::at("192.0.2.1");
    let tries = |client: &mut Client| {
        (0..100)
            .filter(|n| {
                limits
                    .check(&[0], &client.tenant(&n.to_string()))
                    .refused
                    .is_none()
            })
            .count()
    };
    assert_eq!(tries(&mut stranger), 32);
    let mut proxy = Client::at("192.0.2.2");
    proxy.trusted = true;
    assert_eq!(tries(&mut proxy), 100);
}

#[test]
fn a_policy_that_did_not_change_keeps_its_budgets_wherever_it_stands() {
    let clock = clock();
    let (a, b) = (
        policy("a", 1, 60, LimitBy::Ip),
        policy("b", 1, 60, LimitBy::Ip),
    );
    let first = Limits::compile(&[a.clone(), b.clone()], &clock, None);
    let client = Client::at("192.0.2.1");
    first.check(&[0, 1], &client.who());
    let mut wider = a;
    wider.burst = NonZeroU32::new(5).unwrap();
    let second = Limits::compile(&[b, wider], &clock, Some(&first));
    assert!(second.check(&[0], &client.who()).refused.is_some());
    assert!(second.check(&[1], &client.who()).refused.is_none());
}

#[test]
fn a_route_meets_each_policy_once_before_or_after_authentication() {
    let applies = |name: &str, by: LimitBy, applies_to| RateLimit {
        applies_to,
        ..policy(name, 1, 1, by)
    };
    let off = RateLimit {
        rate: None,
        ..applies("off", LimitBy::Ip, AppliesTo::All)
    };
    let failures = RateLimit {
        count: Count::Failures,
        ..applies("failures", LimitBy::Ip, AppliesTo::All)
    };
    let both = RateLimit {
        by: vec![LimitBy::Ip, LimitBy::User],
        ..applies("both", LimitBy::Ip, AppliesTo::All)
    };
    let limits = Limits::compile(
        &[
            applies("named", LimitBy::Ip, AppliesTo::Named),
            applies("protected", LimitBy::User, AppliesTo::Protected),
            applies("all", LimitBy::Header(http::header::HOST), AppliesTo::All),
            applies("login", LimitBy::Ip, AppliesTo::Login),
            off,
            failures,
            both,
            applies("account", LimitBy::Account, AppliesTo::Login),
        ],
        &clock(),
        None,
    );
    let check = |named: &[usize], protected, login, before: &[usize], after: &[usize]| {
        let lists = limits.for_route(
            &RouteLimits::Add(named.to_vec()),
            Place { protected, login },
        );
        assert_eq!((&*lists.before, &*lists.after), (before, after));
        assert_eq!(&*lists.failures, [5]);
        assert_eq!(&*lists.account, if login { &[7][..] } else { &[] });
    };
    check(&[], false, false, &[2], &[6]);
    check(&[], true, false, &[2], &[1, 6]);
    check(&[0, 2], true, false, &[0, 2], &[1, 6]);
    check(&[], false, true, &[2, 3], &[6]);
    let none = limits.for_route(
        &RouteLimits::None,
        Place {
            protected: true,
            login: true,
        },
    );
    assert_eq!(none, RouteLists::default());
}

#[test]
fn sweeping_reaches_every_table() {
    let clock = clock();
    let by = LimitBy::Header(HeaderName::from_static("x-tenant"));
    let limits = Limits::compile(&[policy("tenant", 1, 1, by)], &clock, None);
    limits.check(&[0], &Client::at("192.0.2.1").tenant("a"));
    assert_eq!(limits.keys(), 2);
    clock.advance(Duration::from_secs(60));
    limits.sweep();
    assert_eq!(limits.keys(), 0);
}

#[test]
fn clients_that_have_no_address_do_not_lock_each_other_out() {
    let clock = clock();
    let policies = [
        policy("per_ip", 2, 60, LimitBy::Ip),
        policy(
            "per_tenant",
            2,
            60,
            LimitBy::Header("x-tenant".parse().unwrap()),
        ),
    ];
    let limits = Limits::compile(&policies, &clock, None);
    let mut nowhere = Client::at("0.0.0.0");
    for _ in 0..10 {
        assert_eq!(limits.check(&[0], &nowhere.who()), Outcome::default());
        limits.failure(&[0], &nowhere.who());
    }
    assert_eq!(limits.failures_blocked(&[0], &nowhere.who()), None);
    // What they say of themselves still counts.
    for left in [true, true, false] {
        let outcome = limits.check(&[1], &nowhere.tenant("a"));
        assert_eq!(outcome.refused.is_none(), left);
    }
}

#[test]
fn an_account_has_one_budget_wherever_its_logins_come_from() {
    let clock = clock();
    let by_account = RateLimit {
        applies_to: AppliesTo::Login,
        ..policy("login_account", 10, 600, LimitBy::Account)
    };
    let limits = Limits::compile(&[by_account], &clock, None);
    let lists = limits.for_route(
        &RouteLimits::Add(Vec::new()),
        Place {
            protected: false,
            login: true,
        },
    );
    let try_once = |account| limits.check_account(&lists.account, account);
    for left in (0..10).rev() {
        let outcome = try_once("ada@example.com");
        assert_eq!(outcome.refused, None);
        let standing = outcome.tightest.unwrap();
        assert_eq!((standing.limit, standing.remaining), (10, left));
    }
    let refused = try_once("ada@example.com").refused.unwrap();
    assert_eq!((refused.policy, refused.retry_after), (0, 60));
    assert_eq!(try_once("grace@example.com").refused, None);
    clock.advance(Duration::from_secs(60));
    assert_eq!(try_once("ada@example.com").refused, None);
    assert!(try_once("ada@example.com").refused.is_some());
    assert_eq!(
        limits.check_account(&[], "ada@example.com"),
        Outcome::default()
    );
}

#[test]
fn invented_accounts_are_bounded_and_do_not_all_share_one_budget() {
    let limits = Limits::compile(&[policy("a", 1, 600, LimitBy::Account)], &clock(), None);
    for number in 0..110_000_u32 {
        limits.check_account(&[0], &number.to_string());
    }
    assert!(limits.keys() <= 105_000, "{}", limits.keys());
    let refused = (0..1000)
        .filter(|n| {
            limits
                .check_account(&[0], &format!("new {n}"))
                .refused
                .is_some()
        })
        .count();
    // About 10,000 of the first found the table full and took from 4096 groups; a few groups are left.
    assert!((500..1000).contains(&refused), "{refused}");
}
