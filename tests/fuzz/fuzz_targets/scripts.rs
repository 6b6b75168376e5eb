//! Source of Lua, whatever it says: a script ends, writes one whole reply, and leaves the engine in
//! order for the next.

#![no_main]

use std::cell::RefCell;

use carnelian_resp::{Protocol, Reply, Writer};
use carnelian_scripting::{Engine, Host, Limits, LogLevel, Run, Tick};
use libfuzzer_sys::fuzz_target;

thread_local! {
    static ENGINE: RefCell<Engine> =
        RefCell::new(Engine::new(Limits { memory: 32 << 20 }).expect("there is memory"));
}

/// Answers every command with its last word; ends what takes long.
struct Echo {
    ticks: u32,
}

impl Host for Echo {
    fn call(&mut self, words: &[&[u8]], protocol: Protocol, reply: &mut Vec<u8>) {
        Writer::new(reply, protocol).bulk(words[words.len() - 1]);
    }

    fn log(&mut self, _: LogLevel, _: &[u8]) {}

    fn acl_check(&mut self, _: &[&[u8]]) -> Option<bool> {
        Some(true)
    }

    fn set_repl(&mut self, _: u8) {}

    fn tick(&mut self) -> Tick {
        self.ticks += 1;
        if self.ticks < 20 { Tick::Continue } else { Tick::Kill }
    }
}

fuzz_target!(|source: &[u8]| {
    ENGINE.with_borrow_mut(|engine| {
        let keys: &[&[u8]] = &[b"key"];
        let mut out = Vec::new();
        if let Ok(handle) = engine.script(source) {
            let host = &mut Echo { ticks: 0 };
            let protocol = Protocol::Resp3;
            engine.run_script(&handle, Run { keys, arguments: keys, host, protocol, out: &mut out });
            let whole = Reply::decode(&out);
            assert!(out.len() > 1 << 20 || whole.is_err() || whole.is_ok_and(|it| it.is_some()));
        }
        let handle = engine.script(b"return redis.call('x', KEYS[1])").expect("it compiles");
        let host = &mut Echo { ticks: 0 };
        let protocol = Protocol::Resp2;
        out.clear();
        engine.run_script(&handle, Run { keys, arguments: &[], host, protocol, out: &mut out });
        assert_eq!(out, b"$3\r\nkey\r\n");
    });
});
