/* The CPU backend: its memory, its table of kernels, and convolutions prepared for them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "backend/cpu/conv.h"
#include "backend/cpu/requantise.h"
#include "backend/registry.h"
#include "base/bias.h"
#include "base/norm.h"
#include "platform/clock.h"

enum { ALIGNMENT = 64, HUGE_PAGE = 2 << 20 };

/* Large buffers start on a huge page and ask for more of them: fewer TLB misses in the kernels. */
static void *alloc_zeroed(size_t bytes) {
  const size_t alignment = bytes >= HUGE_PAGE ? HUGE_PAGE : ALIGNMENT;
  void *p = NULL;
  if (bytes == 0) bytes = ALIGNMENT;
  if (bytes > PTRDIFF_MAX || posix_memalign(&p, alignment, bytes) != 0) return NULL;
#ifdef MADV_HUGEPAGE
  if (alignment == HUGE_PAGE) (void)madvise(p, bytes, MADV_HUGEPAGE); /* advice: it may fail */
#endif
  memset(p, 0, bytes);
  return p;
}

static NitiStatus fail_memory(size_t bytes, const char *what) {
  return niti_fail(NITI_ERROR_MEMORY, "out of memory: %zu bytes asked for%s", bytes, what);
}

static NitiStatus cpu_alloc(NitiBackend *backend, void **out, size_t bytes) {
  (void)backend;
  *out = alloc_zeroed(bytes);
  if (!*out) return fail_memory(bytes, "");
  return NITI_OK;
}

static void cpu_release(NitiBackend *backend, void *p) {
  (void)backend;
  free(p);
}

/* The memory that the system could still provide depends on all other processes. */
static size_t cpu_free_bytes(NitiBackend *backend) {
  (void)backend;
  return SIZE_MAX;
}

static void cpu_upload(NitiBackend *backend, void *to, const void *host, size_t bytes) {
  (void)backend;
  if (bytes) memcpy(to, host, bytes);
}

static void cpu_download(NitiBackend *backend, void *host, const void *from, size_t bytes) {
  (void)backend;
  if (bytes) memcpy(host, from, bytes);
}

static NitiStatus cpu_synchronise(NitiBackend *backend) {
  return niti_ranks_check(backend->together.ranks); /* every operation is complete when it returns */
}

static void cpu_begin_step(NitiBackend *backend, uint64_t seed, uint32_t step, const int64_t *scalars) {
  NitiCpu *cpu = niti_cpu(backend);
  cpu->seed = seed;
  cpu->step = step;
  cpu->largest_count = 0;
  memcpy(cpu->scalars, scalars, sizeof cpu->scalars);
}

static NitiShiftCounts cpu_shift_counts(NitiBackend *backend) {
  const NitiCpu *cpu = niti_cpu(backend);
  return (NitiShiftCounts){cpu->predicted, cpu->mispredicted};
}

static void cpu_mark(NitiBackend *backend, int64_t *at) {
  (void)backend;
  *at = niti_clock_now();
}

static NitiStatus cpu_reserve(NitiBackend *backend, size_t bytes) {
  NitiCpu *cpu = niti_cpu(backend);
  if (bytes <= cpu->workspace_bytes) return NITI_OK;
  uint8_t *workspace = alloc_zeroed(bytes);
  if (!workspace) return fail_memory(bytes, " as the kernels' workspace");
  free(cpu->workspace);
  cpu->workspace = workspace;
  cpu->workspace_bytes = bytes;
  return NITI_OK;
}

static void cpu_close(NitiBackend *backend) {
  NitiCpu *cpu = niti_cpu(backend);
  niti_threads_close(cpu->threads);
  niti_threads_close(cpu->alone);
  free(cpu->workspace);
  free(cpu);
}

static const char *cpu_describe(const NitiBackend *backend) { return ((const NitiCpu *)(const void *)backend)->description; }

static const char *cpu_hardware(const NitiBackend *backend) { return ((const NitiCpu *)(const void *)backend)->hardware; }

static int cpu_threads(const NitiBackend *backend) {
  return niti_threads_count(((const NitiCpu *)(const void *)backend)->threads);
}

static const char *cpu_kernels(const NitiBackend *backend) {
  return niti_isa_name(((const NitiCpu *)(const void *)backend)->isa);
}

/* ---- convolutions: a plan, and packed weights where they stay the same ---- */

typedef struct Prepared {
  NitiConvPlan *plan;
  NitiKeptWeights kept;
  int32_t *bias; /* forward: [K], at the accumulators' exponent */
} Prepared;

static void conv_release(NitiBackend *backend, NitiConvCall *call) {
  Prepared *p = call->prepared;
  (void)backend;
  if (!p) return;
  niti_conv_close(p->plan);
  free(p->kept.data);
  free(p->bias);
  free(p);
  call->prepared = NULL;
}

static NitiStatus make_plan(NitiConvPlan **out, const NitiBackend *backend, const NitiConvCall *call) {
  const NitiConvTraits traits = {.nonnegative = call->nonnegative, .relu = call->relu, .way = call->way};
  return niti_conv_prepare(out, (const NitiCpu *)(const void *)backend, &call->shape, call->direction, traits);
}

static NitiStatus conv_prepare(NitiBackend *backend, NitiConvCall *call) {
  Prepared *p = calloc(1, sizeof *p);
  call->prepared = p;
  if (!p) return niti_fail(NITI_ERROR_MEMORY, "out of memory: %zu bytes asked for", sizeof *p);
  NITI_TRY(make_plan(&p->plan, backend, call));
  const size_t bias = call->direction == NITI_FORWARD ? (size_t)call->shape.k * sizeof(int32_t) : 0;
  if (bias > 0 && !(p->bias = malloc(bias))) return fail_memory(bias, " for a bias");
  const size_t kept = call->constant ? niti_conv_kept_bytes(p->plan) : 0;
  if (kept > 0 && !(p->kept.data = alloc_zeroed(kept))) return fail_memory(kept, " to keep packed weights in");
  p->kept.bytes = kept;
  return cpu_reserve(backend, niti_conv_workspace(p->plan));
}

static void conv_forget(NitiBackend *backend, NitiConvCall *call) {
  (void)backend;
  if (call->prepared) ((Prepared *)call->prepared)->kept.layout = NULL;
}

static size_t conv_workspace(const NitiBackend *backend, const NitiConvCall *call) {
  NitiConvPlan *plan = NULL;
  if (make_plan(&plan, backend, call) != NITI_OK) return 0; /* preparing it will fail again, with a message */
  const size_t bytes = niti_conv_workspace(plan);
  niti_conv_close(plan);
  return bytes;
}

static const char *conv_kernel(const NitiBackend *backend, const NitiConvCall *call) {
  (void)backend;
  return niti_conv_kernel_name(((const Prepared *)call->prepared)->plan);
}

/* At the accumulators' exponent. */
static void place_bias(int32_t *out, const NitiTensor *bias, const NitiConvCall *call, int32_t exponent) {
  const int16_t *own = (const int16_t *)(const void *)bias->data;
  const int64_t *means = (const int64_t *)(const void *)bias->data;
  for (int32_t k = 0; k < call->shape.k; ++k)
    out[k] = call->centred ? niti_norm_centre(means[k], exponent) : niti_bias_at(own[k], *bias->exponent - exponent);
}

static int conv_ways(const NitiBackend *backend, const NitiConvCall *call, NitiWay ways[NITI_WAYS_MAX]) {
  return niti_conv_ways(ways, (const NitiCpu *)(const void *)backend, &call->shape, call->direction);
}

static void conv_forward(NitiBackend *backend, NitiTensor *y, const NitiTensor *x, const NitiTensor *w, const NitiTensor *bias,
                         const NitiConvCall *call, const NitiRequantise *rq) {
  Prepared *p = call->prepared;
  const int32_t exponent = *x->exponent + *w->exponent;
  if (bias) place_bias(p->bias, bias, call, exponent);
  *y->exponent = exponent + niti_conv_forward(niti_cpu(backend), p->plan, y->data, x->data, w->data, bias ? p->bias : NULL,
                                              p->kept.data ? &p->kept : NULL, rq);
}

static void conv_backward(NitiBackend *backend, NitiTensor *dx, const NitiTensor *dy, const NitiTensor *w, const NitiTensor *mask,
                          const NitiConvCall *call, const NitiRequantise *rq) {
  const Prepared *p = call->prepared;
  *dx->exponent =
      *dy->exponent + *w->exponent + niti_conv_backward(niti_cpu(backend), p->plan, dx->data, dy->data, w->data, mask, rq);
}

static void conv_gradient(NitiBackend *backend, NitiGradient *gradient, const NitiTensor *dy, const NitiTensor *x,
                          const NitiConvCall *call) {
  niti_conv_gradient(niti_cpu(backend), ((const Prepared *)call->prepared)->plan, gradient, dy->data, x->data);
}

static const NitiBackendOps ops = {
    .name = "cpu",
    .host_memory = true,
    .close = cpu_close,
    .describe = cpu_describe,
    .hardware = cpu_hardware,
    .threads = cpu_threads,
    .kernels = cpu_kernels,
    .alloc = cpu_alloc,
    .release = cpu_release,
    .free_bytes = cpu_free_bytes,
    .upload = cpu_upload,
    .download = cpu_download,
    .synchronise = cpu_synchronise,
    .shift_counts = cpu_shift_counts,
    .multiply_add = niti_cpu_multiply_add,
};

static const NitiKernels kernels = {
    .begin_step = cpu_begin_step,
    .mark = cpu_mark,
    .reserve = cpu_reserve,
    .conv_prepare = conv_prepare,
    .conv_release = conv_release,
    .conv_forget = conv_forget,
    .conv_workspace = conv_workspace,
    .conv_kernel = conv_kernel,
    .conv_ways = conv_ways,
    .conv_forward = conv_forward,
    .conv_backward = conv_backward,
    .conv_gradient = conv_gradient,
    .input = niti_cpu_input,
    .bias_gradient = niti_cpu_bias_gradient,
    .all_sum_begin = niti_cpu_all_sum_begin,
    .all_sum_wait = niti_cpu_all_sum_wait,
    .relu_forward = niti_cpu_relu_forward,
    .relu_backward = niti_cpu_relu_backward,
    .maxpool_forward = niti_cpu_maxpool_forward,
    .maxpool_backward = niti_cpu_maxpool_backward,
    .avgpool_forward = niti_cpu_avgpool_forward,
    .avgpool_backward = niti_cpu_avgpool_backward,
    .add = niti_cpu_add,
    .dropout = niti_cpu_dropout,
    .loss = niti_cpu_loss,
    .norm_fit = niti_cpu_norm_fit,
    .norm_forward = niti_cpu_norm_forward,
    .norm_delta_fit = niti_cpu_norm_delta_fit,
    .norm_backward = niti_cpu_norm_backward,
    .update_niti = niti_cpu_update_niti,
    .gradient_squares = niti_cpu_gradient_squares,
    .update_sgd = niti_cpu_update_sgd,
    .stats = niti_cpu_stats,
};

static NitiStatus cpu_open(NitiBackend **out, const NitiBackendOptions *options, const char *device) {
  NitiIsa isa;
  *out = NULL;
  if (device)
    return niti_fail(NITI_ERROR_UNSUPPORTED, "backend \"cpu:%.64s\": the CPU has no devices to choose from, expected cpu",
                     device);
  NITI_TRY(niti_isa_parse(&isa, options->isa));
  NitiCpu *cpu = calloc(1, sizeof *cpu);
  if (!cpu) return niti_fail(NITI_ERROR_MEMORY, "out of memory: %zu bytes asked for", sizeof *cpu);
  NitiStatus status = niti_threads_open(&cpu->threads, options->threads);
  if (status == NITI_OK) status = niti_threads_open(&cpu->alone, 1);
  if (status != NITI_OK) {
    cpu_close(&cpu->base);
    return status;
  }
  cpu->base.ops = &ops;
  cpu->base.kernels = &kernels;
  cpu->isa = isa;
  cpu->requantise = niti_requantise_kernel(isa);
  cpu->direct = options->direct;
  char features[256], model[128];
  niti_cpu_features(features, sizeof features);
  niti_cpu_model(model, sizeof model);
  (void)snprintf(cpu->hardware, sizeof cpu->hardware, "%s (%s)", model, features);
  (void)snprintf(cpu->description, sizeof cpu->description, "cpu, %s kernels, %d thread%s", niti_isa_name(isa),
                 niti_threads_count(cpu->threads), niti_threads_count(cpu->threads) == 1 ? "" : "s");
  *out = &cpu->base;
  return NITI_OK;
}

static void cpu_devices(NitiDeviceTold tell, void *context) {
  char model[128], line[192];
  niti_cpu_model(model, sizeof model);
  (void)snprintf(line, sizeof line, "cpu, %s, %d usable cores", model, niti_usable_cores());
  tell(context, line);
}

const NitiBackendKind niti_backend_cpu = {.name = "cpu", .open = cpu_open, .devices = cpu_devices};
