//! The border to `csrc/`: declarations and the two conversions every call needs.

use crate::{Error, Result};
use std::ffi::{CStr, c_char, c_int, c_void};
use tch::Tensor;
use torch_sys::C_tensor;

/// Runs a closure on inputs that it comes to own, gives its outputs to [`rd_emit`] with the sink, and returns 0, or 1
/// after [`rd_fail`].
pub type CheckpointRun = unsafe extern "C" fn(
    closure: *mut c_void,
    inputs: *const *mut C_tensor,
    n: usize,
    sink: *mut c_void,
) -> c_int;
/// Drops a closure.
pub type CheckpointDrop = unsafe extern "C" fn(closure: *mut c_void);

unsafe extern "C" {
    /// The C library's: ends the process without running destructors.
    pub fn _exit(code: c_int) -> !;
    pub fn rd_last_error() -> *const c_char;
    pub fn rd_fused_adamw(
        params: *const *mut C_tensor,
        grads: *const *mut C_tensor,
        exp_avgs: *const *mut C_tensor,
        exp_avg_sqs: *const *mut C_tensor,
        steps: *const *mut C_tensor,
        n: usize,
        lr: f64,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        eps: f64,
    ) -> c_int;
    pub fn rd_grad_norm(grads: *const *mut C_tensor, n: usize, norm: *mut f64) -> c_int;
    pub fn rd_scale_grads(grads: *const *mut C_tensor, n: usize, factor: f64) -> c_int;
    pub fn rd_clear_grads(params: *const *mut C_tensor, n: usize) -> c_int;
    pub fn rd_rng_get_state(cuda_index: c_int, out: *mut *mut C_tensor) -> c_int;
    pub fn rd_rng_set_state(cuda_index: c_int, state: *mut C_tensor) -> c_int;
    pub fn rd_backward(outputs: *const *mut C_tensor, grads: *const *mut C_tensor, n: usize) -> c_int;
    pub fn rd_cuda_memory(index: c_int, out: *mut i64) -> c_int;
    pub fn rd_attention_without_cudnn();
    #[cfg(test)]
    pub fn rd_attention_may_use_cudnn() -> c_int;
    pub fn rd_cuda_empty_cache() -> c_int;
    pub fn rd_cuda_reset_peak(index: c_int) -> c_int;
    pub fn rd_cpu_capabilities() -> *mut c_char;
    pub fn rd_install_allocator();
    pub fn rd_cpu_memory(out: *mut i64);
    pub fn rd_cpu_reset_peak();
    pub fn rd_free_string(s: *mut c_char);
    pub fn rd_dropout_add_layer_norm(
        x: *mut C_tensor,
        residual: *mut C_tensor,
        w: *mut C_tensor,
        b: *mut C_tensor,
        eps: f64,
        p: f64,
        pre_norm: c_int,
        carry: *mut *mut C_tensor,
        normed: *mut *mut C_tensor,
    ) -> c_int;
    pub fn rd_grad_enabled() -> c_int;
    pub fn rd_version(t: *mut C_tensor) -> i64;
    pub fn rd_linear_gelu(
        x: *mut C_tensor,
        w: *mut C_tensor,
        b: *mut C_tensor,
        out: *mut *mut C_tensor,
    ) -> c_int;
    pub fn rd_linear_cross_entropy(
        hidden: *mut C_tensor,
        weight: *mut C_tensor,
        bias: *mut C_tensor,
        targets: *mut C_tensor,
        scale: f64,
        smoothing: f64,
        bf16: c_int,
        chunk: i64,
        keep: i64,
        plain: c_int,
        loss: *mut *mut C_tensor,
        hit: *mut *mut C_tensor,
    ) -> c_int;
    pub fn rd_checkpoint(
        inputs: *const *mut C_tensor,
        n: usize,
        closure: *mut c_void,
        run: CheckpointRun,
        drop: CheckpointDrop,
        outputs: *mut *mut C_tensor,
        capacity: usize,
        made: *mut usize,
    ) -> c_int;
    pub fn rd_emit(sink: *mut c_void, t: *mut C_tensor);
    pub fn rd_fail(message: *const c_char);
    pub fn rd_gelu(x: *mut C_tensor, out: *mut *mut C_tensor) -> c_int;
    pub fn rd_linear(
        x: *mut C_tensor,
        w: *mut C_tensor,
        b: *mut C_tensor,
        wide: c_int,
        out: *mut *mut C_tensor,
    ) -> c_int;
    pub fn rd_rms_norm(x: *mut C_tensor, w: *mut C_tensor, eps: f64, out: *mut *mut C_tensor) -> c_int;
    pub fn rd_dropout_add_rms_norm(
        x: *mut C_tensor,
        residual: *mut C_tensor,
        w: *mut C_tensor,
        eps: f64,
        p: f64,
        sum: *mut *mut C_tensor,
        normed: *mut *mut C_tensor,
    ) -> c_int;
    pub fn rd_rope(
        x: *mut C_tensor,
        cos: *mut C_tensor,
        sin: *mut C_tensor,
        out: *mut *mut C_tensor,
    ) -> c_int;
    pub fn rd_rope_split(
        qkv: *mut C_tensor,
        cos: *mut C_tensor,
        sin: *mut C_tensor,
        heads: i64,
        kv_heads: i64,
        q: *mut *mut C_tensor,
        k: *mut *mut C_tensor,
        v: *mut *mut C_tensor,
    ) -> c_int;
    pub fn rd_swiglu(x: *mut C_tensor, out: *mut *mut C_tensor) -> c_int;
    pub fn rd_cached_attention(
        q: *mut C_tensor,
        k_cache: *mut C_tensor,
        v_cache: *mut C_tensor,
        lengths: *const i64,
        n: usize,
        scale: f64,
        window: i64,
        out: *mut *mut C_tensor,
    ) -> c_int;
    pub fn rd_cache_write(
        k_cache: *mut C_tensor,
        v_cache: *mut C_tensor,
        slots: *mut C_tensor,
        k: *mut C_tensor,
        v: *mut C_tensor,
    ) -> c_int;
    pub fn rd_maxsim(
        q: *mut C_tensor,
        q_offsets: *const i64,
        n_q: usize,
        d: *mut C_tensor,
        d_offsets: *const i64,
        n_d: usize,
        wanted: *mut C_tensor,
        out: *mut *mut C_tensor,
    ) -> c_int;
    pub fn rd_quantise(
        w: *mut C_tensor,
        nf4: c_int,
        codes: *mut *mut C_tensor,
        scales: *mut *mut C_tensor,
        nested: *mut *mut C_tensor,
        offset: *mut f64,
    ) -> c_int;
    pub fn rd_dequantise(
        codes: *const *mut C_tensor,
        scales: *const *mut C_tensor,
        nested: *const *mut C_tensor,
        offsets: *const f64,
        rows: *const i64,
        n: usize,
        columns: i64,
        bf16: c_int,
        plain: c_int,
        out: *mut *mut C_tensor,
    ) -> c_int;
    pub fn rd_quantised_linear(
        x: *mut C_tensor,
        b: *mut C_tensor,
        codes: *const *mut C_tensor,
        scales: *const *mut C_tensor,
        nested: *const *mut C_tensor,
        offsets: *const f64,
        rows: *const i64,
        n: usize,
        columns: i64,
        out: *mut *mut C_tensor,
    ) -> c_int;
    pub fn rd_varlen_attention(
        q: *mut C_tensor,
        k: *mut C_tensor,
        v: *mut C_tensor,
        offsets: *const i64,
        n_offsets: usize,
        cu: *mut C_tensor,
        longest: i64,
        p: f64,
        causal: c_int,
        scale: f64,
        window: i64,
        out: *mut *mut C_tensor,
    ) -> c_int;
}

/// The status of a call as a result, with the message it left.
pub fn check(status: c_int) -> Result<()> {
    if status == 0 {
        return Ok(());
    }
    // SAFETY: rd_last_error returns a NUL-terminated string owned by this thread, valid until the next call.
    let message = unsafe { CStr::from_ptr(rd_last_error()) }.to_string_lossy().into_owned();
    Err(Error::Torch(message.lines().next().unwrap_or_default().to_string()))
}

/// Tensor handles for a list argument. The tensors must outlive the call.
pub fn pointers(tensors: &[Tensor]) -> Vec<*mut C_tensor> {
    tensors.iter().map(handle).collect()
}

/// The handle of a tensor that the callee only reads (or changes in place through libtorch).
pub fn handle(t: &Tensor) -> *mut C_tensor {
    t.as_ptr().cast_mut()
}

/// Takes ownership of a tensor that the shim made.
pub fn adopt(p: *mut C_tensor) -> Tensor {
    // SAFETY: the shim returned success, so `p` is a fresh heap-allocated at::Tensor that nobody else owns.
    unsafe { Tensor::from_ptr(p) }
}
