//! What a recipe is built in: the run's folder, device and processes, and where its bad rows go.

use crate::{Error, RecipeConfig, Result, RunDir, RunOptions, World};
use ragduet_data::{BadRowPolicy, BadRows};
use ragduet_torch::{Compute, Device, device};

/// The surroundings of a run while its recipe is built.
#[derive(Debug)]
pub struct RunContext {
    /// The run folder, locked.
    pub dir: RunDir,
    /// The device that `[run]` names.
    pub device: Device,
    /// The precision of matrix products on it.
    pub compute: Compute,
    /// The processes that take part.
    pub world: World,
    /// What all readers of the run report bad rows to; the loop says how many there were.
    pub bad_rows: BadRows,
    /// Whether the run goes on.
    pub resumes: bool,
    /// Whether nothing moves on the terminal.
    pub quiet: bool,
}

impl RunContext {
    pub(crate) fn open(config: &impl RecipeConfig, options: &RunOptions, resolved: &str) -> Result<Self> {
        let run = config.run();
        let device = device::parse(&run.device)?;
        let dir = RunDir::open(resolved, options, device)?;
        let bad_rows = BadRows::new(match config.skip_bad_rows() {
            true => BadRowPolicy::Skip { sidecar: dir.path().join("bad_rows.jsonl") },
            false => BadRowPolicy::Fail,
        })
        .with_columns(config.columns().clone());
        let compute = run.precision.resolve(device);
        let world = World::single();
        Ok(Self { dir, device, compute, world, bad_rows, resumes: options.resume, quiet: options.quiet })
    }

    /// Says which rows were left out, when all data is read.
    ///
    /// # Errors
    /// Mapped columns that no file has.
    pub(crate) fn report_bad_rows(&self) -> Result<()> {
        let unmet = self.bad_rows.unmet_columns();
        if !unmet.is_empty() {
            let message = format!("nothing that the run reads has {}", unmet.join(" or "));
            return Err(Error::Config { origin: "data.columns".into(), message });
        }
        let report = self.bad_rows.report();
        if report.missing() > 0 && report.bad_rows() == 0 {
            tracing::warn!("{report}");
        }
        if report.bad_rows() > 0 {
            tracing::warn!("{report}; they are in {}", self.dir.path().join("bad_rows.jsonl").display());
        } else if report.left_out() {
            tracing::info!("{report}");
        }
        Ok(())
    }
}
