//! The Redis that the replicas share. Its time passes with the storm's: what it keeps for seconds is gone when those have
//! passed on the storm's clock.

use super::REPLICAS;
use crate::support::PATIENCE;
use crate::support::redis::RedisServer;
use ::redis::{Cmd, FromRedisValue, cmd};
use parking_lot::Mutex;
use std::thread::sleep;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tollhouse::redis::Redis;

/// How well it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Care {
    Well,
    /// It hangs for moments.
    Hangs,
    /// It hangs, and starts anew with nothing in it.
    Lost,
}

/// What happens to it in a round.
#[derive(Clone, Copy, Debug)]
pub enum Trouble {
    Hangs(Duration),
    StartsAnew(Duration),
}

const PASS: &str = r"for _, key in ipairs(redis.call('KEYS', 'tollhouse:*')) do
  local left = redis.call('PTTL', key)
  if left >= 0 then
    left = left - tonumber(ARGV[1])
    if left > 0 then redis.call('PEXPIRE', key, string.format('%d', left)) else redis.call('DEL', key) end
  end
end";

pub struct Beside {
    pub care: Care,
    server: Mutex<RedisServer>,
    redis: Redis,
    runtime: Runtime,
}

impl Beside {
    pub fn start(care: Care) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let server = RedisServer::start();
        Self {
            care,
            redis: runtime.block_on(server.connect()),
            server: Mutex::new(server),
            runtime,
        }
    }

    /// A command may take so long that only one that hangs takes longer; where it does, nobody waits for it that long.
    pub fn table(&self) -> String {
        let table = self.server.lock().table();
        match self.care {
            Care::Well => table,
            Care::Hangs | Care::Lost => table.replace("2s", "400ms"),
        }
    }

    pub fn meet(&self, trouble: Trouble) {
        let mut server = self.server.lock();
        match trouble {
            Trouble::Hangs(length) => {
                server.freeze();
                sleep(length);
                server.go_on();
            }
            Trouble::StartsAnew(length) => {
                server.stop();
                sleep(length);
                server.start_again();
            }
        }
    }

    /// Waits until all replicas are connected again; false: they are not.
    pub fn is_well_again(&self) -> bool {
        let until = Instant::now() + PATIENCE;
        let mut well = 0;
        while well < 3 {
            if Instant::now() > until {
                return false;
            }
            let mut list = cmd("CLIENT");
            list.arg("LIST");
            let connected = self.ask::<String>(list).lines().count();
            well = if connected == REPLICAS + 1 {
                well + 1
            } else {
                0
            };
            sleep(Duration::from_millis(30));
        }
        true
    }

    pub fn pass(&self, by: Duration) {
        let mut script = cmd("EVAL");
        script.arg(PASS).arg(0);
        script.arg(u64::try_from(by.as_millis()).unwrap());
        self.ask::<()>(script);
    }

    fn ask<T: FromRedisValue + Send + 'static>(&self, command: Cmd) -> T {
        self.runtime.block_on(async {
            let until = Instant::now() + PATIENCE;
            loop {
                self.redis.ready().await;
                match self.redis.ask(command.clone()).await {
                    Ok(answer) => return answer,
                    Err(error) => assert!(Instant::now() < until, "{error}"),
                }
            }
        })
    }
}
