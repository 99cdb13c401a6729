//! What a storm came to.

use super::beside::Care;
use super::scene::Storm;
use super::{Mode, REPLAYED, REQUESTS};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Moments that were so far apart may have been further apart for Redis, in ms.
const INEXACT: u64 = 300;
/// Answers of the provider for each token that was due, where Redis is well; of fewer tokens than many chance makes more.
const RATIO_MAX: f64 = 1.05;
const MANY: usize = 200;
/// What was so near to a cut may have met it.
const AT_ONCE: Duration = Duration::from_millis(50);

impl Storm {
    /// What the provider was asked and everybody was told: a line for the reader. What must not be is a fault.
    pub fn sum(&self) -> String {
        let book = self.front.book.lock();
        let mut tokens: HashMap<&str, Vec<(u64, Instant)>> = HashMap::new();
        let (mut made, mut lost, mut faults) = (0, 0, Vec::new());
        // Whether the first of the two may not have come.
        let cut = |two: &[(u64, Instant)]| {
            let between = two[0].1 - AT_ONCE..two[1].1;
            book.cuts.iter().any(|cut| between.contains(cut))
        };
        for ((replica, token), calls) in &book.calls {
            made += calls.made;
            lost += calls.lost;
            let when = tokens.entry(token).or_default();
            when.extend(&calls.delivered);
            let again = calls
                .delivered
                .windows(2)
                .any(|two| two[1].0 < two[0].0 + self.kept(two[0].0) && !cut(two));
            if again {
                faults.push(format!(
                    "{replica} asked again for {token}, which it knew: {:?}",
                    calls.delivered
                ));
            }
        }
        let (mut delivered, mut twice) = (0, 0);
        for when in tokens.values_mut() {
            delivered += when.len();
            when.sort_by_key(|(_, really)| *really);
            let known = |two: &&[(u64, Instant)]| {
                let really = two[1].1 - two[0].1;
                let passed = two[1].0 - two[0].0 + u64::try_from(really.as_millis()).unwrap();
                passed + INEXACT < self.kept(two[0].0) && !cut(two)
            };
            twice += when.windows(2).filter(known).count();
        }
        let tokens = tokens.len();
        let ratio = delivered as f64 / tokens.max(1) as f64;
        if self.beside.as_ref().map(|beside| beside.care) == Some(Care::Well) {
            if twice > 0 {
                faults.push(format!("{twice} answers were asked for that Redis knew"));
            }
            if tokens >= MANY && ratio > RATIO_MAX {
                faults.push(format!("{ratio:.3} answers for each token that was due"));
            }
        }
        faults.extend(
            self.missing(tokens, lost)
                .into_iter()
                .map(|what| format!("a storm without {what}")),
        );
        let tally = self.tally.lock();
        let told = format!(
            "{mode:?}, Redis {care:?}, life {life} s: {answered} answered, {hung_up} hung up, {left} left before, {late} late; \
             {outages} outages, {restarts} restarts of the provider, {troubles} of Redis; {logouts} logouts, heard within {heard} ms, \
             {copies} copies refused; no success: {refused:?}; {made} refresh calls: {delivered} answers, {lost} lost, {failed} failed, for {tokens} tokens that were due; {ratio:.3} \
             answers for each, {all:.3} calls; {twice} that others knew, {again} that nobody had heard in time; the \
             provider refused {codes:?}",
            failed = made - delivered - lost,
            again = delivered - twice - tokens.min(delivered - twice),
            mode = self.kind.mode,
            care = self.beside.as_ref().map(|beside| beside.care),
            life = self.kind.life,
            answered = tally.answered,
            hung_up = tally.hung_up,
            left = tally.left_before,
            late = tally.late,
            outages = tally.outages,
            restarts = tally.restarts,
            troubles = tally.troubles,
            logouts = tally.logouts,
            heard = tally.heard.as_millis(),
            copies = tally.copies,
            refused = tally.refused,
            all = made as f64 / tokens.max(1) as f64,
            codes = book.codes,
        );
        drop(book);
        for fault in faults {
            self.fault(fault);
        }
        told
    }

    /// For how long an answer is handed out that came at this moment, both in ms: no longer than the token lives that is in
    /// it, whose times are whole seconds.
    fn kept(&self, at: u64) -> u64 {
        let end = (at / 1000 + self.kind.life) * 1000;
        REPLAYED.min(end - at)
    }

    /// A storm of the usual size has some of everything; what this one had not.
    fn missing(&self, tokens: usize, lost: usize) -> Vec<&'static str> {
        let tally = self.tally.lock();
        let care = self.beside.as_ref().map(|beside| beside.care);
        let stored = self.kind.mode == Mode::Stored;
        let troubled = matches!(care, Some(Care::Hangs | Care::Lost));
        let seen = [
            ("tokens that were due", tokens >= 10),
            ("lost answers", lost > 0),
            ("tabs that hung up", tally.hung_up > 20),
            ("late answers", stored || tally.late > 0),
            ("requests that were late", tally.left_before > 0),
            ("outages", tally.outages > 0),
            ("restarts", tally.restarts > 0),
            ("trouble", !troubled || tally.troubles > 0),
            ("logouts", tally.logouts > 0),
            ("copies", tally.copies > 0),
            ("news of logouts", care.is_none() || !tally.heard.is_zero()),
        ];
        let usual = tally.answered >= REQUESTS / 2;
        let missing = seen.into_iter().filter(|(_, seen)| usual && !seen);
        missing.map(|(what, _)| what).collect()
    }
}
