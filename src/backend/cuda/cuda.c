/* The CUDA backend's table, memory and order of work. A host thread may come to a handle from elsewhere, so whatever starts
 * something makes the handle's device the thread's. */
#include "backend/cuda/cuda.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/exchange.h"
#include "backend/registry.h"
#include "platform/environment.h"

enum { LEAST_CAPABILITY = 80, WGMMA_CAPABILITY = 90 };

void niti_cuda_note(NitiCuda *cuda, cudaError_t error, const char *what) {
  cuda->settled = false; /* whatever this was */
  if (error == cudaSuccess || cuda->error != cudaSuccess) return;
  cuda->error = error;
  cuda->failed = what;
}

NitiStatus niti_cuda_status(const NitiCuda *cuda) {
  if (cuda->error == cudaSuccess) return NITI_OK;
  return niti_fail(NITI_ERROR_DEVICE, "cuda:%d: %s failed: %s (%s)", cuda->device, cuda->failed, cudaGetErrorString(cuda->error),
                   cudaGetErrorName(cuda->error));
}

static void use_device(NitiCuda *cuda) {
  niti_cuda_note(cuda, niti_cuda_runtime.cudaSetDevice(cuda->device), "choosing the device");
}

static void wait(NitiCuda *cuda) {
  niti_cuda_note(cuda, niti_cuda_runtime.cudaStreamSynchronize(cuda->stream), "work on the device");
}

/* ---- memory ---- */

static size_t cuda_free_bytes(NitiBackend *backend) {
  NitiCuda *cuda = niti_cuda(backend);
  size_t available = 0, total = 0;
  use_device(cuda);
  if (niti_cuda_runtime.cudaMemGetInfo(&available, &total) == cudaSuccess) return available;
  (void)niti_cuda_runtime.cudaGetLastError();
  return SIZE_MAX;
}

static NitiStatus fail_memory(NitiCuda *cuda, size_t bytes, const char *what) {
  size_t available = 0, total = 0;
  (void)niti_cuda_runtime.cudaGetLastError(); /* reported here, so that no later launch reports it */
  if (niti_cuda_runtime.cudaMemGetInfo(&available, &total) != cudaSuccess) {
    (void)niti_cuda_runtime.cudaGetLastError();
    return niti_fail(NITI_ERROR_MEMORY, "cuda:%d: out of memory: %zu bytes asked for%s", cuda->device, bytes, what);
  }
  return niti_fail(NITI_ERROR_MEMORY, "cuda:%d: out of memory: %zu bytes asked for%s, %zu of %zu free", cuda->device, bytes, what,
                   available, total);
}

static NitiStatus allocate(NitiCuda *cuda, void **out, size_t bytes, const char *what) {
  *out = NULL;
  use_device(cuda);
  NITI_TRY(niti_cuda_status(cuda));
  const size_t size = bytes > 0 ? bytes : 1;
  const cudaError_t error = niti_cuda_runtime.cudaMalloc(out, size);
  if (error == cudaErrorMemoryAllocation) {
    *out = NULL;
    return fail_memory(cuda, bytes, what);
  }
  niti_cuda_note(cuda, error, "cudaMalloc");
  if (error == cudaSuccess)
    niti_cuda_note(cuda, niti_cuda_runtime.cudaMemsetAsync(*out, 0, size, cuda->stream), "cudaMemsetAsync");
  if (cuda->error == cudaSuccess) return NITI_OK;
  (void)niti_cuda_runtime.cudaFree(*out);
  *out = NULL;
  return niti_cuda_status(cuda);
}

static NitiStatus cuda_alloc(NitiBackend *backend, void **out, size_t bytes) {
  return allocate(niti_cuda(backend), out, bytes, "");
}

/* Work under way may use the memory. */
static void forget_work(NitiCuda *cuda) {
  wait(cuda);
  niti_layouts_clear(cuda->layouts);
}

static void cuda_release(NitiBackend *backend, void *p) {
  NitiCuda *cuda = niti_cuda(backend);
  if (!p) return;
  use_device(cuda);
  forget_work(cuda);
  niti_cuda_note(cuda, niti_cuda_runtime.cudaFree(p), "cudaFree");
}

static NitiStatus allocate_workspace(NitiCuda *cuda, size_t bytes) {
  void *workspace = NULL;
  NITI_TRY(allocate(cuda, &workspace, bytes, " as the kernels' workspace"));
  cuda->workspace = workspace;
  cuda->workspace_bytes = bytes;
  return NITI_OK;
}

/* Where there is no room for more, what was compiled before still has the workspace that it asked for. */
static NitiStatus cuda_reserve(NitiBackend *backend, size_t bytes) {
  NitiCuda *cuda = niti_cuda(backend);
  const size_t before = cuda->workspace_bytes;
  if (bytes <= before) return NITI_OK;
  use_device(cuda);
  forget_work(cuda);
  void *workspace = cuda->workspace;
  cuda->workspace = NULL;
  cuda->workspace_bytes = 0;
  ++cuda->generation;
  niti_cuda_note(cuda, niti_cuda_runtime.cudaFree(workspace), "cudaFree");
  const NitiStatus status = allocate_workspace(cuda, bytes);
  if (status == NITI_ERROR_MEMORY && before > 0 && allocate_workspace(cuda, before) != NITI_OK)
    niti_cuda_note(cuda, cudaErrorMemoryAllocation, "the kernels' workspace");
  return status;
}

static size_t cuda_tensor_bytes(const NitiBackend *backend, NitiShape shape, int uses) {
  (void)backend;
  const bool more = (uses & (NITI_USE_GRADIENT | NITI_USE_MASK)) != 0;
  return more ? niti_bits_offset(shape) + niti_bits_bytes(shape) : niti_shape_count(shape);
}

static size_t cuda_layout_bytes(const NitiBackend *backend, NitiShape shape, int layout) {
  (void)backend;
  return layout == 0 ? niti_blocked_bytes(shape) : niti_bits_bytes(shape);
}

static void cuda_upload(NitiBackend *backend, void *to, const void *host, size_t bytes) {
  NitiCuda *cuda = niti_cuda(backend);
  use_device(cuda);
  niti_layouts_forget(cuda->layouts, to, bytes);
  niti_staging_upload(cuda, to, host, bytes);
}

static void cuda_download(NitiBackend *backend, void *host, const void *from, size_t bytes) {
  NitiCuda *cuda = niti_cuda(backend);
  if (bytes == 0) return;
  use_device(cuda);
  niti_cuda_note(cuda, niti_cuda_runtime.cudaMemcpyAsync(host, from, bytes, cudaMemcpyDeviceToHost, cuda->stream), "a download");
  wait(cuda);
  if (cuda->error != cudaSuccess) memset(host, 0, bytes);
}

/* ---- order ---- */

static NitiStatus cuda_synchronise(NitiBackend *backend) {
  NitiCuda *cuda = niti_cuda(backend);
  use_device(cuda);
  wait(cuda);
  return niti_cuda_status(cuda);
}

static NitiShiftCounts cuda_shift_counts(NitiBackend *backend) {
  uint64_t counters[2] = {0}; /* the range's `predicted` and `mispredicted`, side by side */
  _Static_assert(offsetof(NitiRange, mispredicted) == offsetof(NitiRange, predicted) + sizeof *counters, "two counters in a row");
  backend->ops->download(backend, counters, &niti_cuda(backend)->range->predicted, sizeof counters);
  return (NitiShiftCounts){counters[0], counters[1]};
}

static void cuda_begin_step(NitiBackend *backend, uint64_t seed, uint32_t step, const int64_t *scalars) {
  NitiCuda *cuda = niti_cuda(backend);
  cuda->now = (NitiClock){.seed = seed, .step = step};
  memcpy(cuda->now.scalars, scalars, sizeof cuda->now.scalars);
  cuda->late = true;
  use_device(cuda);
}

/* ---- whose kernels may wait for all their blocks (meet.cuh): the first open backend's of the process on each device ---- */

enum { DEVICES = 64 }; /* of higher numbers none may */
static atomic_bool waiting[DEVICES];

/* By number, as older toolkits have no name for it; a device that does not know is taken as shared. */
static bool has_mps(int device) {
  const enum cudaDeviceAttr mps_enabled = (enum cudaDeviceAttr)133;
  int value = 1;
  if (niti_cuda_runtime.cudaDeviceGetAttribute(&value, mps_enabled, device) == cudaSuccess) return value != 0;
  (void)niti_cuda_runtime.cudaGetLastError();
  return true;
}

/* NITI_CUDA_MEETINGS=off: for tools that make kernels larger than the runtime knows (compute-sanitizer), and to find out. */
static NitiStatus claim(NitiCuda *cuda) {
  static const char *const words[] = {"on", "off"};
  int off;
  NITI_TRY(niti_exchange_choice(&off, "NITI_CUDA_MEETINGS", niti_environment_get("NITI_CUDA_MEETINGS"), words, 2));
  cuda->shared = off != 0 || cuda->device >= DEVICES || has_mps(cuda->device) || atomic_exchange(&waiting[cuda->device], true);
  return NITI_OK;
}

static void release(const NitiCuda *cuda) {
  if (!cuda->shared) atomic_store(&waiting[cuda->device], false);
}

/* ---- open and close ---- */

static void cuda_close(NitiBackend *backend) {
  NitiCuda *cuda = niti_cuda(backend);
  (void)niti_cuda_runtime.cudaSetDevice(cuda->device);
  if (cuda->stream) (void)niti_cuda_runtime.cudaStreamSynchronize(cuda->stream);
  niti_cuda_leave(cuda);
  niti_queue_close(cuda->queue);
  niti_staging_close(cuda->staging);
  niti_layouts_close(cuda->layouts);
  (void)niti_cuda_runtime.cudaFree(cuda->workspace);
  (void)niti_cuda_runtime.cudaFree(cuda->range);
  (void)niti_cuda_runtime.cudaFree(cuda->clock);
  niti_cuda_beside_close(cuda);
  if (cuda->stream) (void)niti_cuda_runtime.cudaStreamDestroy(cuda->stream);
  (void)niti_cuda_runtime.cudaGetLastError();
  release(cuda);
  free(cuda);
}

static const char *cuda_describe(const NitiBackend *backend) { return niti_cuda_const(backend)->description; }
static const char *cuda_hardware(const NitiBackend *backend) { return niti_cuda_const(backend)->hardware; }

static const char *family_name(NitiCudaFamily family) { return family == NITI_CUDA_WGMMA ? "wgmma" : "mma"; }

static const char *cuda_kernels(const NitiBackend *backend) { return family_name(niti_cuda_const(backend)->family); }

static int cuda_threads(const NitiBackend *backend) {
  (void)backend;
  return 1;
}

static const NitiBackendOps ops = {
    .name = "cuda",
    .host_memory = false,
    .update_bytes = 8 << 20, /* as long as two launches take */
    .close = cuda_close,
    .describe = cuda_describe,
    .hardware = cuda_hardware,
    .kernels = cuda_kernels,
    .threads = cuda_threads,
    .alloc = cuda_alloc,
    .release = cuda_release,
    .free_bytes = cuda_free_bytes,
    .upload = cuda_upload,
    .download = cuda_download,
    .synchronise = cuda_synchronise,
    .shift_counts = cuda_shift_counts,
};

static const NitiKernels kernels = {
    .begin_step = cuda_begin_step,
    .mark = niti_cuda_mark,
    .replay = niti_cuda_replay,
    .close_recordings = niti_cuda_close_recordings,
    .begin_aside = niti_cuda_begin_aside,
    .end_aside = niti_cuda_end_aside,
    .rejoin = niti_cuda_rejoin,
    .tensor_bytes = cuda_tensor_bytes,
    .layout_bytes = cuda_layout_bytes,
    .mask_uses = niti_cuda_mask_uses,
    .complete = niti_cuda_complete,
    .download_elements = niti_cuda_download_elements,
    .reserve = cuda_reserve,
    .takes_workspace = true,
    .conv_workspace = niti_cuda_conv_workspace,
    .conv_packed_bytes = niti_cuda_conv_packed_bytes,
    .conv_pack = niti_cuda_conv_pack,
    .conv_kernel = niti_cuda_conv_kernel,
    .conv_ways = niti_cuda_conv_ways,
    .conv_forward = niti_cuda_conv_forward,
    .conv_backward = niti_cuda_conv_backward,
    .conv_gradient = niti_cuda_conv_gradient,
    .input = niti_cuda_input,
    .bias_gradient = niti_cuda_bias_gradient,
    .link_name = niti_cuda_link_name,
    .connect = niti_cuda_connect,
    .disconnect = niti_cuda_disconnect,
    .reserve_sums = niti_cuda_reserve_sums,
    .all_sum_begin = niti_cuda_all_sum_begin,
    .all_sum_wait = niti_cuda_all_sum_wait,
    .relu_forward = niti_cuda_relu_forward,
    .relu_backward = niti_cuda_relu_backward,
    .maxpool_forward = niti_cuda_maxpool_forward,
    .maxpool_backward = niti_cuda_maxpool_backward,
    .avgpool_forward = niti_cuda_avgpool_forward,
    .avgpool_backward = niti_cuda_avgpool_backward,
    .add = niti_cuda_add,
    .dropout = niti_cuda_dropout,
    .loss = niti_cuda_loss,
    .norm_fit = niti_cuda_norm_fit,
    .norm_forward = niti_cuda_norm_forward,
    .norm_pool_serves = niti_cuda_norm_pool_serves,
    .norm_pool_forward = niti_cuda_norm_pool_forward,
    .norm_pool_backward = niti_cuda_norm_pool_backward,
    .norm_delta_fit = niti_cuda_norm_delta_fit,
    .norm_backward = niti_cuda_norm_backward,
    .update_niti = niti_cuda_update_niti,
    .gradient_squares = niti_cuda_gradient_squares,
    .update_sgd = niti_cuda_update_sgd,
    .stats = niti_cuda_stats,
};

/* How many devices there are; fails where that is none. `name` is for messages. */
static NitiStatus count_devices(int *count, const char *name) {
  *count = 0;
  const cudaError_t error = niti_cuda_runtime.cudaGetDeviceCount(count);
  (void)niti_cuda_runtime.cudaGetLastError();
  if (error == cudaSuccess && *count > 0) return NITI_OK;
  int driver = 0, runtime = 0;
  (void)niti_cuda_runtime.cudaDriverGetVersion(&driver);
  (void)niti_cuda_runtime.cudaRuntimeGetVersion(&runtime);
  (void)niti_cuda_runtime.cudaGetLastError();
  if (driver == 0) return niti_fail(NITI_ERROR_UNSUPPORTED, "backend \"%s\": this machine has no NVIDIA driver", name);
  if (error == cudaErrorInsufficientDriver) {
    return niti_fail(NITI_ERROR_UNSUPPORTED, "backend \"%s\": the NVIDIA driver supports CUDA %d.%d (expected at least %d.0)",
                     name, driver / 1000, driver % 1000 / 10, runtime / 1000);
  }
  if (error == cudaErrorNoDevice || error == cudaSuccess)
    return niti_fail(NITI_ERROR_UNSUPPORTED, "backend \"%s\": this machine has no CUDA device", name);
  return niti_fail(NITI_ERROR_UNSUPPORTED, "backend \"%s\": CUDA does not work here: %s", name, cudaGetErrorString(error));
}

/* device: NULL (the first, or of several ranks of a host each its own) or a number in decimal. */
static NitiStatus choose_device(int *out, const char *device, int local) {
  char name[80];
  int count = 0;
  (void)snprintf(name, sizeof name, device ? "cuda:%.64s" : "cuda", device ? device : "");
  *out = 0;
  if (device) {
    const size_t length = strlen(device);
    if (length == 0 || length > 4 || strspn(device, "0123456789") != length)
      return niti_fail(NITI_ERROR_UNSUPPORTED, "backend \"%s\": expected cuda or cuda:N, N a device's number from 0", name);
    *out = atoi(device);
  }
  NITI_TRY(count_devices(&count, name));
  if (!device) *out = local % count;
  if (*out < count) return NITI_OK;
  if (count == 1) return niti_fail(NITI_ERROR_UNSUPPORTED, "backend \"%s\": the only CUDA device is cuda:0", name);
  return niti_fail(NITI_ERROR_UNSUPPORTED, "backend \"%s\": the last CUDA device is cuda:%d", name, count - 1);
}

static NitiStatus read_attribute(int *value, int device, enum cudaDeviceAttr which, const char *what) {
  const cudaError_t error = niti_cuda_runtime.cudaDeviceGetAttribute(value, which, device);
  if (error == cudaSuccess) return NITI_OK;
  (void)niti_cuda_runtime.cudaGetLastError(); /* reported here */
  return niti_fail(NITI_ERROR_DEVICE, "cuda:%d: reading its %s failed: %s (%s)", device, what, cudaGetErrorString(error),
                   cudaGetErrorName(error));
}

static NitiStatus read_capability(int *capability, int device) {
  int major, minor;
  NITI_TRY(read_attribute(&major, device, cudaDevAttrComputeCapabilityMajor, "compute capability"));
  NITI_TRY(read_attribute(&minor, device, cudaDevAttrComputeCapabilityMinor, "compute capability"));
  *capability = 10 * major + minor;
  return NITI_OK;
}

static NitiStatus check_isa(const char *isa) {
  if (!isa || strcmp(isa, "auto") == 0 || strcmp(isa, "mma") == 0 || strcmp(isa, "wgmma") == 0) return NITI_OK;
  return niti_fail(NITI_ERROR_UNSUPPORTED, "isa \"%.64s\": no kernels of the cuda backend (expected auto, mma or wgmma)", isa);
}

/* isa has been checked. wgmma exists in capability 9.0 alone: its code is made for that and no later one. */
static NitiStatus choose_family(NitiCudaFamily *out, const char *isa, int device, int capability) {
  const bool has_wgmma = capability == WGMMA_CAPABILITY;
  *out = has_wgmma ? NITI_CUDA_WGMMA : NITI_CUDA_MMA;
  if (capability < LEAST_CAPABILITY) {
    return niti_fail(NITI_ERROR_UNSUPPORTED,
                     "backend \"cuda:%d\": the device has compute capability %d.%d (expected at least %d.%d)", device,
                     capability / 10, capability % 10, LEAST_CAPABILITY / 10, LEAST_CAPABILITY % 10);
  }
  if (isa && strcmp(isa, "mma") == 0) *out = NITI_CUDA_MMA;
  if (!isa || strcmp(isa, "wgmma") != 0 || has_wgmma) return NITI_OK;
  return niti_fail(NITI_ERROR_UNSUPPORTED,
                   "isa \"wgmma\": cuda:%d has compute capability %d.%d (expected %d.%d; mma supports it)", device,
                   capability / 10, capability % 10, WGMMA_CAPABILITY / 10, WGMMA_CAPABILITY % 10);
}

static void describe(NitiCuda *cuda) {
  struct cudaDeviceProp properties;
  int driver = 0, runtime = 0;
  if (niti_cuda_runtime.cudaGetDeviceProperties(&properties, cuda->device) != cudaSuccess)
    (void)snprintf(properties.name, sizeof properties.name, "CUDA device");
  (void)niti_cuda_runtime.cudaDriverGetVersion(&driver);
  (void)niti_cuda_runtime.cudaRuntimeGetVersion(&runtime);
  (void)niti_cuda_runtime.cudaGetLastError();
  (void)snprintf(cuda->description, sizeof cuda->description, "cuda:%d, %.80s, %s kernels", cuda->device, properties.name,
                 family_name(cuda->family));
  (void)snprintf(cuda->hardware, sizeof cuda->hardware,
                 "%.80s (capability %d.%d, %d multiprocessors; driver for CUDA %d.%d, runtime %d.%d)", properties.name,
                 cuda->capability / 10, cuda->capability % 10, cuda->multiprocessors, driver / 1000, driver % 1000 / 10,
                 runtime / 1000, runtime % 1000 / 10);
}

static NitiStatus open_parts(NitiCuda *cuda) {
  void *clock = NULL, *range = NULL;
  use_device(cuda);
  niti_cuda_note(cuda, niti_cuda_runtime.cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking), "making a stream");
  NITI_TRY(niti_cuda_status(cuda));
  NITI_TRY(niti_cuda_beside_open(cuda));
  cuda->overlap = niti_cuda_overlaps();
  NITI_TRY(claim(cuda));
  describe(cuda);
  cuda->layouts = niti_layouts_open();
  if (!cuda->layouts) return niti_fail(NITI_ERROR_MEMORY, "out of memory for the CUDA backend");
  NITI_TRY(niti_queue_open(&cuda->queue));
  NITI_TRY(niti_staging_open(&cuda->staging));
  NITI_TRY(allocate(cuda, &clock, sizeof *cuda->clock, ""));
  cuda->clock = clock;
  NITI_TRY(allocate(cuda, &range, sizeof *cuda->range, ""));
  cuda->range = range;
  return NITI_OK;
}

static NitiStatus cuda_open(NitiBackend **out, const NitiBackendOptions *options, const char *device) {
  int number, capability, multiprocessors;
  NitiCudaFamily family;
  *out = NULL;
  NITI_TRY(check_isa(options->isa));
  NITI_TRY(choose_device(&number, device, options->local));
  if (options->threads < 0) return niti_fail(NITI_ERROR_ARGUMENT, "threads: %d is negative", options->threads);
  NITI_TRY(read_capability(&capability, number));
  NITI_TRY(choose_family(&family, options->isa, number, capability));
  NITI_TRY(read_attribute(&multiprocessors, number, cudaDevAttrMultiProcessorCount, "number of multiprocessors"));
  NitiCuda *cuda = calloc(1, sizeof *cuda);
  if (!cuda) return niti_fail(NITI_ERROR_MEMORY, "out of memory: %zu bytes asked for", sizeof *cuda);
  cuda->base.ops = &ops;
  cuda->base.kernels = &kernels;
  cuda->device = number;
  cuda->capability = capability;
  cuda->multiprocessors = multiprocessors;
  cuda->family = family;
  cuda->shared = true;
  const NitiStatus status = open_parts(cuda);
  if (status != NITI_OK) {
    cuda_close(&cuda->base);
    return status;
  }
  *out = &cuda->base;
  return NITI_OK;
}

static void cuda_devices(NitiDeviceTold tell, void *context) {
  int count = 0;
  if (niti_cuda_runtime.cudaGetDeviceCount(&count) != cudaSuccess) count = 0;
  for (int i = 0; i < count; ++i) {
    struct cudaDeviceProp properties;
    char line[256];
    if (niti_cuda_runtime.cudaGetDeviceProperties(&properties, i) != cudaSuccess) continue;
    (void)snprintf(line, sizeof line, "cuda:%d, %.80s, capability %d.%d, %zu MiB", i, properties.name, properties.major,
                   properties.minor, properties.totalGlobalMem >> 20);
    tell(context, line);
  }
  (void)niti_cuda_runtime.cudaGetLastError();
}

const NitiBackendKind niti_backend_cuda = {.name = "cuda", .open = cuda_open, .devices = cuda_devices};
