//! What the main thread does while everything runs: looks after the threads and tells the service manager.
//! Owns: which dead thread ends the process, which fails readiness, and when a sign of life is given.
//! Never: waits for another thread.

use super::{Daemon, EXIT_COMPONENT_DIED};
use crate::api::status::observed::observe;
use crate::limits::{DRAIN_MS, STOP_MARGIN_MS};
use crate::supervisor::{Progress, Supervisor};
use crate::sys::StopSignals;
use crate::worker::Worker;

impl Daemon {
    /// Waits for a stop signal while looking after the threads.
    pub(super) fn watch(&self, signals: &StopSignals, supervisor: &Supervisor) {
        let look_every_ms = supervisor.watchdog.look_every_ms();
        let mut told = self.summary();
        while crate::worker::idle(|| signals.wait(look_every_ms)) == 0 {
            observe(&self.api);
            self.tell(supervisor, &mut told);
            // Without these two nothing can be decided or called; a process that only looks alive is worse
            // than one that its supervisor restarts.
            for (name, dead) in [("core", self.core.is_finished()), ("broker", !self.api.broker.stats().is_alive)] {
                if dead {
                    log::error!("thread {name} has ended; the process exits to be restarted");
                    std::process::exit(EXIT_COMPONENT_DIED);
                }
            }
            let own = [&self.answerer, &self.upkeep, &self.capture, &self.snapshots, &self.task_reaper];
            let others = self
                .engines
                .iter()
                .chain(self.deliveries.workers())
                .chain(&self.sidecars)
                .chain(&self.mcp)
                .chain(&self.hooks)
                .chain(own);
            let mut dead: Vec<&str> = others.filter(|worker| worker.is_finished()).map(Worker::name).collect();
            if !self.edge.stats().reactor_alive {
                dead.push("http-reactor");
            }
            if self.hub.stats().writers.iter().any(|writer| !writer.alive) {
                dead.push("sse");
            }
            if !self.audit.is_alive() {
                dead.push("audit");
            }
            if let Some(name) = dead.first() {
                // Full means that a failure was reported before, which is enough.
                let _reported_before = self.report_failure.try_send((*name).to_string());
            }
        }
        log::info!("stop signal received; draining");
    }

    /// Gives the service manager a sign of life while everything moves, and one line when what it says has changed.
    fn tell(&self, supervisor: &Supervisor, told: &mut String) {
        if !supervisor.notifier.is_heard() {
            return;
        }
        let progress = Progress {
            journal_poisoned: self.api.core.view().poisoned.clone(),
            batch_age_ms: self.api.core.batch_age_ms(),
            threads: crate::worker::roll(),
        };
        let line = match progress.stalled(supervisor.watchdog.stall_ms()) {
            Some(stalled) => format!("stalled: {stalled}"),
            None => {
                if supervisor.watchdog.is_wanted() {
                    supervisor.notifier.send("WATCHDOG=1");
                }
                self.summary()
            }
        };
        if line != *told {
            supervisor.notifier.status(&line);
            *told = line;
        }
    }

    /// What the daemon does, in one line for `systemctl status`.
    pub(super) fn summary(&self) -> String {
        let held = if self.api.core.view().counts.held { "; new runs are held" } else { "" };
        format!("listening on {}{held}", self.edge.local_addr())
    }

    /// How long a stop may take.
    pub(super) fn stop_budget_ms(&self) -> u64 {
        DRAIN_MS + self.api.config.drain_timeout_ms + STOP_MARGIN_MS
    }
}
