//! The dice of a storm.

use std::time::Duration;

/// xorshift64* (Vigna): small, and the same everywhere.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        // Spread, so that seeds beside each other give different storms; zero would stay zero.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 33) as usize % bound
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn millis(&mut self, below: usize) -> Duration {
        Duration::from_millis(self.below(below) as u64)
    }

    /// Between the two, and as often between one and twice that wherever it is: most are near the least.
    pub fn spread(&mut self, least: Duration, most: Duration) -> Duration {
        let part = self.below(1_000_001) as f64 / 1_000_000.0;
        least.mul_f64((most.as_secs_f64() / least.as_secs_f64()).powf(part))
    }
}
