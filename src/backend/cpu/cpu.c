#include "backend/cpu/cpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "backend/registry.h"
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

static NitiStatus cpu_alloc(NitiBackend *backend, void **out, size_t bytes) {
  (void)backend;
  *out = alloc_zeroed(bytes);
  if (!*out) return niti_fail(NITI_ERROR_MEMORY, "out of memory: %zu bytes asked for", bytes);
  return NITI_OK;
}

static void cpu_release(NitiBackend *backend, void *p) {
  (void)backend;
  free(p);
}

/* What the system could still give depends on everything else that runs. */
static size_t cpu_free_bytes(NitiBackend *backend) {
  (void)backend;
  return SIZE_MAX;
}

static size_t cpu_tensor_bytes(const NitiBackend *backend, NitiShape shape) {
  (void)backend;
  return niti_shape_count(shape);
}

static void cpu_upload(NitiBackend *backend, void *to, const void *host, size_t bytes) {
  (void)backend;
  if (bytes) memcpy(to, host, bytes);
}

static void cpu_download(NitiBackend *backend, void *host, const void *from, size_t bytes) {
  (void)backend;
  if (bytes) memcpy(host, from, bytes);
}

static void cpu_clear(NitiBackend *backend, void *p, size_t bytes) {
  (void)backend;
  if (bytes) memset(p, 0, bytes);
}

static NitiStatus cpu_synchronise(NitiBackend *backend) {
  (void)backend; /* every operation has ended when it returns */
  return NITI_OK;
}

static void cpu_begin_step(NitiBackend *backend, uint64_t seed, uint32_t step) {
  NitiCpu *cpu = niti_cpu(backend);
  cpu->seed = seed;
  cpu->step = step;
}

static NitiStatus cpu_replay(NitiBackend *backend, const NitiReplayKey *key, void (*enqueue)(void *), void *context) {
  (void)backend;
  (void)key;
  enqueue(context);
  return NITI_OK;
}

static NitiPredictions cpu_predictions(NitiBackend *backend) {
  const NitiCpu *cpu = niti_cpu(backend);
  return (NitiPredictions){cpu->predicted, cpu->mispredicted};
}

static void cpu_mark(NitiBackend *backend, int64_t *at) {
  (void)backend;
  *at = niti_clock_now();
}

static NitiStatus cpu_reserve(NitiBackend *backend, size_t bytes) {
  NitiCpu *cpu = niti_cpu(backend);
  if (bytes <= cpu->workspace_bytes) return NITI_OK;
  uint8_t *workspace = alloc_zeroed(bytes);
  if (!workspace) return niti_fail(NITI_ERROR_MEMORY, "out of memory: %zu bytes asked for as the kernels' workspace", bytes);
  free(cpu->workspace);
  cpu->workspace = workspace;
  cpu->workspace_bytes = bytes;
  return NITI_OK;
}

static void cpu_close(NitiBackend *backend) {
  NitiCpu *cpu = niti_cpu(backend);
  niti_threads_close(cpu->threads);
  free(cpu->workspace);
  free(cpu);
}

static const char *cpu_describe(const NitiBackend *backend) { return ((const NitiCpu *)(const void *)backend)->description; }

static const char *cpu_hardware(const NitiBackend *backend) { return ((const NitiCpu *)(const void *)backend)->hardware; }

static int cpu_threads(const NitiBackend *backend) {
  return niti_threads_count(((const NitiCpu *)(const void *)backend)->threads);
}

static const NitiBackendOps ops = {
    .name = "cpu",
    .host_memory = true,
    .close = cpu_close,
    .describe = cpu_describe,
    .hardware = cpu_hardware,
    .threads = cpu_threads,
    .alloc = cpu_alloc,
    .release = cpu_release,
    .free_bytes = cpu_free_bytes,
    .tensor_bytes = cpu_tensor_bytes,
    .upload = cpu_upload,
    .download = cpu_download,
    .clear = cpu_clear,
    .synchronise = cpu_synchronise,
    .begin_step = cpu_begin_step,
    .mark = cpu_mark,
    .replay = cpu_replay,
    .conv_workspace = niti_cpu_conv_workspace,
    .conv_packed_bytes = niti_cpu_conv_packed_bytes,
    .reserve = cpu_reserve,
    .conv_kernel = niti_cpu_conv_kernel,
    .input = niti_cpu_input,
    .conv_forward = niti_cpu_conv_forward,
    .conv_backward = niti_cpu_conv_backward,
    .conv_gradient = niti_cpu_conv_gradient,
    .relu_forward = niti_cpu_relu_forward,
    .relu_backward = niti_cpu_relu_backward,
    .maxpool_forward = niti_cpu_maxpool_forward,
    .maxpool_backward = niti_cpu_maxpool_backward,
    .avgpool_forward = niti_cpu_avgpool_forward,
    .avgpool_backward = niti_cpu_avgpool_backward,
    .add = niti_cpu_add,
    .copy = niti_cpu_copy,
    .dropout = niti_cpu_dropout,
    .loss = niti_cpu_loss,
    .update_niti = niti_cpu_update_niti,
    .predictions = cpu_predictions,
    .stats = niti_cpu_stats,
    .multiply_add = niti_cpu_multiply_add,
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
  const NitiStatus status = niti_threads_open(&cpu->threads, options->threads);
  if (status != NITI_OK) {
    free(cpu);
    return status;
  }
  cpu->base.ops = &ops;
  cpu->isa = isa;
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
