//! The thread that follows the journal and tells hooks that wait for nobody.
//! Owns: how far it has come, and that a restart goes on there.
//! Never: calls the command of a hook twice for one event; a request may be repeated, under the same key.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, select};

use super::call::{Chain, Failed, call};
use super::definition::{Executor, Hook};
use super::invocation::Invocation;
use super::told::told;
use super::{Compiled, Hooks, lock};
use crate::commit::{CommandError, CoreView};
use crate::core::{Command, HookCommand, HookNotified};
use crate::ids::Seq;
use crate::journal::{ReadError, Record};
use crate::limits::{HOOK_ADVANCE_RECORDS, HOOK_DRAIN_MS, HOOK_PAUSE_MS, HOOK_READ_BYTES};
use crate::net::Cancel;
use crate::worker::{Worker, idle};

/// Rung whenever something was committed.
#[derive(Clone)]
pub struct Bell(Sender<()>);

impl Bell {
    /// Wakes the thread; costs nothing while it is awake.
    pub fn ring(&self) {
        let _rung_before = self.0.try_send(());
    }
}

/// A bell, and what hears it.
pub fn bell() -> (Bell, Receiver<()>) {
    let (bell, rung) = bounded(1);
    (Bell(bell), rung)
}

/// How the thread is ended.
#[derive(Default)]
pub(super) struct Ending {
    /// Nothing further is begun.
    stopping: Cancel,
    /// What is in hand is cut off.
    cut: Cancel,
    /// Disconnects with the thread.
    ended: Mutex<Option<Receiver<Infallible>>>,
}

/// What the thread does next.
enum Next {
    /// Go on at once.
    Look,
    /// Wait for the bell, or so long.
    Wait,
    /// Wait, without being woken by what nobody is to be told of.
    Rest,
    /// The daemon stops.
    End,
}

/// Where the thread is.
#[derive(Default)]
struct At {
    /// The next record; none before the first look.
    next: Option<Seq>,
    /// What is durably behind it.
    noted: Seq,
    /// Whether there were hooks to tell at the last look.
    had_any: bool,
}

impl Hooks {
    /// Starts the threads `hooks` and `hook-look`.
    ///
    /// # Errors
    /// The operating system refused a thread.
    pub fn start(&self, rung: Receiver<()>) -> io::Result<Vec<Worker>> {
        let (alive, ended) = bounded(0);
        *lock(&self.0.ending.ended) = Some(ended);
        let (follower, looker) = (self.clone(), self.clone());
        let follow = Worker::spawn("hooks", move || {
            follower.follow(&rung);
            drop(alive);
        })?;
        let look = Worker::spawn("hook-look", move || looker.look_after())?;
        Ok(vec![follow, look])
    }

    /// Begins nothing further, waits for the call in hand for at most [`HOOK_DRAIN_MS`], and cuts it off then.
    pub fn stop(&self) {
        self.0.ending.stopping.cancel();
        if let Some(ended) = lock(&self.0.ending.ended).take() {
            // Nothing is ever sent: it disconnects, or time is up.
            let _ended_or_timed_out = ended.recv_timeout(Duration::from_millis(HOOK_DRAIN_MS));
        }
        self.0.ending.cut.cancel();
    }

    /// Disconnects when the daemon stops.
    pub(super) fn stopping(&self) -> &Cancel {
        &self.0.ending.stopping
    }

    fn follow(&self, rung: &Receiver<()>) {
        let mut at = At::default();
        while !self.stopping().is_cancelled() {
            match self.step(&mut at) {
                Next::Look => {}
                Next::Rest => drop(idle(|| self.stopping().wait(Duration::from_millis(HOOK_PAUSE_MS)))),
                // Without a record of it nothing further is begun; the daemon stops, or its journal takes nothing.
                Next::Wait | Next::End => idle(|| {
                    select! {
                        recv(rung) -> _ => {}
                        recv(self.stopping().woken()) -> _ => {}
                        default(Duration::from_millis(HOOK_PAUSE_MS)) => {}
                    }
                }),
            }
        }
    }

    fn step(&self, at: &mut At) -> Next {
        let view = self.0.around.core.view();
        if view.runtime.settings().hooks.is_none() || is_held(&view) {
            return Next::Rest;
        }
        let compiled = self.compiled();
        let has_any = compiled.definitions.hooks.iter().any(|hook| !hook.blocking);
        let progress = &view.hooks.progress;
        let looked_before = at.next.is_some();
        let mut next = *at.next.get_or_insert(if progress.at == 0 { progress.through + 1 } else { progress.at });
        at.noted = at.noted.max(progress.through);
        if !has_any {
            // Whoever is to be told later is told of what happens from then on.
            at.next = Some(next.max(view.committed + 1));
            at.had_any = false;
            return match self.note(at, view.committed, HOOK_ADVANCE_RECORDS) {
                Next::Wait => Next::Rest,
                other => other,
            };
        }
        if !std::mem::replace(&mut at.had_any, true) {
            if looked_before {
                next = next.max(view.hooks.changed_at + 1);
                at.next = Some(next);
            }
            if at.noted + 1 < next {
                return self.note(at, next - 1, 1);
            }
        }
        match self.0.reader.scan(next, HOOK_READ_BYTES) {
            Ok(records) if records.is_empty() => Next::Wait,
            Ok(records) => self.tell_of(&records, &compiled, at),
            Err(ReadError::Retired { .. }) => {
                let floor = self.0.reader.floor();
                log::error!("hooks were not told of records {next} to {}: they are no longer kept", floor - 1);
                at.next = Some(floor);
                Next::Look
            }
            Err(error) => {
                log::error!("hooks cannot be told of what happens: {error}");
                Next::Wait
            }
        }
    }

    /// Notes that everything up to `through` is done with, once that spares `records` of reading.
    fn note(&self, at: &mut At, through: Seq, records: u64) -> Next {
        if through < at.noted + records {
            return Next::Wait;
        }
        match self.keep(HookCommand::Advanced(through)) {
            true => {
                at.noted = through;
                Next::Look
            }
            false => Next::End,
        }
    }

    fn tell_of(&self, records: &[Record], compiled: &Compiled, at: &mut At) -> Next {
        for record in records {
            if self.stopping().is_cancelled() {
                return Next::End;
            }
            for told in told(record) {
                for hook in &compiled.definitions.hooks {
                    let concerns = hook.event == told.of && !hook.blocking && hook.matches(&told.subject);
                    if concerns && !self.tell(hook, &told, record) {
                        return Next::End;
                    }
                }
            }
            at.next = Some(record.seq + 1);
            if record.seq >= at.noted + HOOK_ADVANCE_RECORDS && matches!(self.note(at, record.seq, 1), Next::End) {
                return Next::End;
            }
        }
        Next::Look
    }

    /// Tells one hook of one event; `false` when the daemon stops before that is done with.
    fn tell(&self, hook: &Arc<Hook>, told: &Invocation, record: &Record) -> bool {
        let is_command = matches!(hook.executor, Executor::Command { .. });
        let (seq, name) = (record.seq, &hook.name);
        let view = self.0.around.core.view();
        let progress = &view.hooks.progress;
        if progress.at == seq && progress.done.contains(name) {
            return true;
        }
        let interrupted = || Failed::new("interrupted", INTERRUPTED, false);
        if progress.at == seq && progress.begun.as_ref() == Some(name) {
            return self.dead(seq, hook, told, &interrupted(), 1);
        }
        if is_command && !self.keep(HookCommand::Begun(notified(seq, hook, 0))) {
            return false;
        }
        let cut = &self.0.ending.cut;
        let called = call(&self.0.around, hook, told, Chain::Daemon(record.run), cut);
        match called.result {
            Ok(answer) => {
                if !answer.ignored.is_empty() || answer.block {
                    log::info!("hook {name} waits for nobody: its answer is not followed");
                }
                self.keep(HookCommand::Notified(notified(seq, hook, called.attempts)))
            }
            Err(_) if cut.is_cancelled() => {
                if is_command {
                    self.dead(seq, hook, told, &interrupted(), called.attempts);
                }
                false
            }
            Err(failed) => self.dead(seq, hook, told, &failed, called.attempts),
        }
    }

    fn dead(&self, seq: Seq, hook: &Hook, told: &Invocation, failed: &Failed, attempts: u32) -> bool {
        self.keep(self.dead_letter(Some(seq), hook, told, failed, attempts))
    }

    /// Makes a record durable, however long the disk is full; `false` when the daemon stops first.
    fn keep(&self, command: HookCommand) -> bool {
        loop {
            match self.0.around.core.execute(Command::Hook(command.clone())) {
                Ok(_) => return true,
                Err(CommandError::StorageFull { .. } | CommandError::WriteFailed { .. } | CommandError::Busy) => {
                    if self.0.ending.cut.wait(Duration::from_millis(HOOK_PAUSE_MS)) {
                        return false;
                    }
                }
                Err(error) => {
                    if !self.stopping().is_cancelled() {
                        log::error!("hooks: what was done cannot be recorded: {error}");
                    }
                    // A poisoned journal lasts until the next start, and so does this.
                    self.stopping().wait(Duration::from_millis(HOOK_PAUSE_MS));
                    return false;
                }
            }
        }
    }
}

const INTERRUPTED: &str = "the daemon ended while it ran: its outcome is UNKNOWN, and it was not run again";

fn notified(of_seq: Seq, hook: &Hook, attempt_count: u32) -> HookNotified {
    HookNotified { of_seq, hook_name: hook.name.clone(), attempt_count }
}

/// A root that was copied, or that an operator holds, tells nobody anything.
pub(super) fn is_held(view: &CoreView) -> bool {
    view.counts.held || view.counts.deliveries.held
}
