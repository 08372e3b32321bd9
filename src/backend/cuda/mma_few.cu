/* Convolution forward of few channels, as a network's first layer has, with mma.sync: windows overlap and begin anywhere, so a
 * thread gathers its bytes of them (mma_window.cuh).
 *
 * A block takes some rows of output pixels of 16 images, and copies the input rows that their windows meet. A warp takes a few
 * pixels at a time; the 16 rows of a product are the images of a pixel. All weights are in shared memory beside the rows, an odd
 * number of chunks of 16 bytes apart: eight of them fill all banks once.
 *
 * Where all blocks run at once they meet (meet.cuh): they compute all products twice, the first time for the range alone, as
 * little as that costs beside rounding and storing. */
#include "backend/cuda/meet.cuh"
#include "backend/cuda/mma_few.h"
#include "backend/cuda/mma_first.h"
#include "backend/cuda/mma_pixels.cuh"
#include "backend/cuda/mma_window.cuh"

enum {
  WARPS = 8,
  THREADS = WARPS * 32,
  BLOCKS = 2, /* of a multiprocessor */
  IMAGES = NITI_BLOCK_IMAGES,
  LEAST_IMAGES = 12, /* as mma_conv.cu has it */
  CHUNK = 16,
  STEP = 32,            /* bytes of the sum that one product takes */
  SUM_MOST = 16 * STEP, /* bytes */
  CHANNELS_MOST = 15,   /* of the input, for which it pays, but for short sums: others are padded at little cost; */
  GROUPS_MOST = 2,      /* groups of the output's: a warp computes one after the other; */
  PIXELS_LEAST = 16000, /* and its pixels, as measured on an H200; nor does it where others gather whole words */
  SHARED_MOST = 96 * 1024,
};

struct Few {
  NitiMmaPass pass;
  NitiWindowRows windows;
  int32_t steps;           /* of the sum */
  int32_t w_pitch, groups; /* bytes between rows of weights; of NI * 8 channels */
  int32_t height;          /* output rows of a job; those at the end may have fewer */
  NitiDivisor down;        /* jobs of a block of images */
  uint32_t jobs;
  uint32_t w_from, rows_from; /* in shared memory, behind the sum's offsets */
};

NITI_DYNAMIC_SHARED(niti_mma_few_shared);

static __device__ inline void make_offsets(const Few &f) {
  const NitiMmaPass &p = f.pass;
  const int run = p.tap_columns * p.ic;
  for (int k = (int)threadIdx.x; k < f.steps * STEP; k += THREADS)
    ((int *)niti_mma_few_shared)[k] = niti_window_offset(f.windows, k, run, p.tap_rows * run);
}

template <int NI>
static __device__ inline void copy_weights(const Few &f) {
  const NitiMmaPass &p = f.pass;
  const int bytes = p.tap_rows * p.tap_columns * p.ic, words = f.steps * STEP / 4;
  const int8_t *end = p.w + (int64_t)p.oc * bytes;
#pragma unroll 4
  for (int i = (int)threadIdx.x; i < f.groups * NI * 8 * words; i += THREADS) {
    const int row = i / words, k = (i - row * words) * 4, channel = niti_mma_column<NI>(row);
    const uint32_t word = channel < p.oc ? niti_window_weights(p.w + (int64_t)channel * bytes, k, bytes, end) : 0;
    *(uint32_t *)(niti_mma_few_shared + f.w_from + row * f.w_pitch + k) = word;
  }
}

/* The first image, output row and input row of a job. */
struct Job {
  int image, y, in_y, count; /* count: of pixels */
};

static __device__ inline Job job_at(const Few &f, uint32_t number) {
  const uint32_t block = niti_divide(f.down, number);
  Job j;
  j.image = (int)block * IMAGES;
  j.y = (int)(number - block * f.down.divisor) * f.height;
  j.in_y = j.y * f.pass.step_y + f.pass.tap_y;
  j.count = min(f.height, f.pass.jh - j.y) * f.pass.jw;
  return j;
}

/* Where a thread's bytes of a product's 32 are, from a window's first on. */
static __device__ inline void load_offsets(int (&from)[8], int step) {
  const int *at = (const int *)niti_mma_few_shared + step * STEP + 4 * (threadIdx.x & 3);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int4 four = *(const int4 *)(at + 16 * half);
    from[4 * half] = four.x, from[4 * half + 1] = four.y, from[4 * half + 2] = four.z, from[4 * half + 3] = four.w;
  }
}

/* MI pixels of a job, all channels. Returns the largest |accumulator|; stores: of the shift that is known. */
template <int MI, int NI, bool SHORT>
static __device__ __forceinline__ uint32_t multiply(const Few &f, const Job &j, const Images &images, int unit,
                                                    const int (&only)[8], int shift, bool stores) {
  const NitiMmaPass &p = f.pass;
  const int lane = threadIdx.x % 32;
  const uint32_t shared = niti_shared_address(niti_mma_few_shared);
  Spots<MI> spots;
  spots.images = images;
  const uint8_t *at[MI];
  uint32_t largest = 0, a[MI][4];
#pragma unroll
  for (int mi = 0; mi < MI; ++mi) {
    const int pixel = min(unit * MI + mi, j.count - 1); /* a pixel may be computed twice */
    const int y = (int)niti_divide(p.columns, (uint32_t)pixel), x = pixel - y * p.jw;
    spots.at[mi] = (uint32_t)((j.y + y) * p.jw + x) * (uint32_t)p.oc;
    at[mi] = niti_mma_few_shared + f.rows_from +
             (y * p.step_y * f.windows.pitch + f.windows.left + x * p.step_x * p.ic) * NITI_WINDOW_CELL + lane / 4 * 2;
    if (SHORT) niti_window_gather(a[mi], at[mi], only);
  }
#pragma unroll 1
  for (int across = 0; across < f.groups * NI * 8; across += NI * 8) {
    const int column = across + lane % 4 * (2 * NI);
    uint32_t b_from = shared + f.w_from + (across + (lane & 7) + (lane >> 4 << 3)) * f.w_pitch + (lane >> 3 & 1) * CHUNK;
    int acc[MI][NI][4];
#pragma unroll
    for (int i = 0; i < MI * NI * 4; ++i) acc[i / (NI * 4)][i / 4 % NI][i % 4] = 0;
#pragma unroll 1
    for (int step = 0; step < (SHORT ? 1 : f.steps); ++step, b_from += STEP) {
      uint32_t w[NI / 2][4];
#pragma unroll
      for (int i = 0; i < NI / 2; ++i) niti_load_matrices(w[i], b_from + i * 16 * f.w_pitch);
      if (!SHORT) {
        int from[8];
        load_offsets(from, step);
#pragma unroll
        for (int mi = 0; mi < MI; ++mi) niti_window_gather(a[mi], at[mi], from);
      }
      niti_mma_all<MI, NI>(acc, a, w);
    }
    if (p.rq.bias) niti_mma_add_bias<MI, NI>(p, acc, spots, column);
    largest = max(largest, niti_mma_largest<MI, NI>(acc));
    if (!stores) continue;
    const int shifted = settle_where_needed<MI, NI>(p, acc, spots, column, shift);
    const uint32_t no_mask[MI][2][NI / 2] = {};
    niti_mma_store<MI, NI, true>(p, acc, no_mask, spots, column, shifted);
  }
  return largest;
}

/* SHORT: the sum is one product's. */
template <int MI, int NI, bool SHORT>
static __global__ void __launch_bounds__(THREADS, BLOCKS) few(const __grid_constant__ Few f, const bool second) {
  niti_kernel_begin();
  const NitiMmaPass &p = f.pass;
  int shift;
  if (!niti_mma_begin(p, second, &shift)) return;
  uint32_t largest = 0, loaded = 0xffffffffu;
  make_offsets(f);
  copy_weights<NI>(f);
  for (int pass = p.meets ? 0 : 1; pass < 2; ++pass) {
    for (uint32_t number = blockIdx.x; number < f.jobs; number += gridDim.x) {
      const Job job = job_at(f, number);
      if (number != loaded) {
        __syncthreads(); /* the rows before have been read */
        niti_windows_copy<THREADS>(f.windows, niti_mma_few_shared + f.rows_from, job.image, job.in_y);
        __syncthreads();
        loaded = number;
      }
      int only[8];
      if (SHORT) load_offsets(only, 0);
      const Images images = images_of(p, job.image);
      const int units = (job.count + MI - 1) / MI;
      for (int unit = (int)threadIdx.x / 32; unit < units; unit += WARPS)
        largest = max(largest, multiply<MI, NI, SHORT>(f, job, images, unit, only, shift, pass == 1));
    }
    if (pass == 0) shift = niti_meet_all(p.rq, largest);
  }
  if (p.meets) return;
  if (!second) niti_range_raise(p.rq, largest);
  __syncthreads();
  if (second && threadIdx.x == 0) niti_range_end(p.rq, p.second_blocks);
}

/* ---- host ---- */

typedef void (*Kernel)(Few, bool);
struct Variant {
  Kernel kernel;
  int pixels, columns; /* of a warp's unit, and of a group */
};

template <int MI, int NI>
static Variant variant(bool is_short) {
  return Variant{is_short ? few<MI, NI, true> : few<MI, NI, false>, MI, NI * 8};
}

static Variant variant_for(const Few &f) {
  const bool is_short = f.steps == 1;
  if (f.pass.oc % 16 == 0 && f.pass.oc > 32) return variant<1, 8>(is_short);
  return f.pass.oc % 8 == 0 && f.pass.oc > 16 ? variant<2, 4>(is_short) : variant<4, 2>(is_short);
}

static int parts_of(int all, int part) { return (all + part - 1) / part; }

/* What follows from the rows of a job. false: shared memory is too small. */
static bool lay_out(Few *f, const Variant &v, int height) {
  const NitiMmaPass &p = f->pass;
  f->height = height;
  f->windows.rows = (height - 1) * p.step_y + p.tap_rows;
  f->groups = parts_of(p.oc, v.columns);
  f->w_pitch = (2 * f->steps + 1) * CHUNK;
  f->w_from = (uint32_t)f->steps * STEP * (uint32_t)sizeof(int);
  const int64_t weights = (int64_t)f->groups * v.columns * f->w_pitch,
                jobs = parts_of(p.n, IMAGES) * (int64_t)parts_of(p.jh, height);
  f->rows_from = f->w_from + (uint32_t)weights;
  f->jobs = (uint32_t)jobs;
  return f->w_from + weights + niti_windows_bytes(f->windows) <= SHARED_MOST && jobs < INT32_MAX;
}

static size_t shared_of(const Few &f) { return f.rows_from + (size_t)niti_windows_bytes(f.windows); }

/* Picoseconds of all jobs: those that a multiprocessor takes in turn, each of which waits for its rows. */
static int64_t jobs_time(const Few &f, const Variant &v, int multiprocessors) {
  const NitiMmaPass &p = f.pass;
  const int64_t each = parts_of((int)f.jobs, multiprocessors), rounds = (each + BLOCKS - 1) / BLOCKS;
  const int64_t units = parts_of(f.height * p.jw, v.pixels) * (int64_t)f.groups;
  const int64_t copies = each * niti_windows_bytes(f.windows) * 10, weights = (int64_t)f.groups * v.columns * f.steps * STEP;
  const int64_t work = copies + each * units * (v.pixels * f.steps * 10000 + 20000 + v.pixels * v.columns * 600);
  const int64_t chain = rounds * (1500000 + parts_of((int)units, WARPS) * (int64_t)(500000 + 100000 * f.steps));
  return weights * 100 + (work > chain ? work : chain);
}

/* Everything but tensors. INT64_MAX: the shape is not served; else the picoseconds that it is expected to take. */
static int64_t plan(Few *f, const NitiConv *c, int multiprocessors) {
  const int64_t sum = (int64_t)c->kh * c->kw * c->c;
  Few tried = {};
  NitiMmaPass &p = tried.pass;
  if (c->n < LEAST_IMAGES || c->c % 16 == 0 || sum > SUM_MOST) return INT64_MAX;
  if ((int64_t)c->oh * c->ow * c->k >= INT32_MAX || (int64_t)c->h * c->w * c->c >= INT32_MAX) return INT64_MAX;
  p.n = c->n, p.ih = c->h, p.iw = c->w, p.ic = c->c;
  p.jh = c->oh, p.jw = c->ow, p.oc = c->k;
  p.step_y = c->stride_h, p.step_x = c->stride_w, p.tap_y = -c->pad_h, p.tap_x = -c->pad_w;
  p.tap_rows = c->kh, p.tap_columns = c->kw;
  p.in_row = c->w * c->c;
  p.in_image = (int64_t)c->h * p.in_row;
  p.out_pixel = c->k;
  p.out_row = (int64_t)c->ow * c->k;
  p.out_image = c->oh * p.out_row;
  tried.steps = (int)((sum + STEP - 1) / STEP);
  if (!niti_windows_fit(c)) return INT64_MAX;
  tried.windows = niti_windows_of(c);
  const Variant v = variant_for(tried);
  int64_t least = INT64_MAX;
  for (int parts = 1; parts < 2 * p.jh; parts *= 2) {
    if (!lay_out(&tried, v, parts_of(p.jh, parts < p.jh ? parts : p.jh))) continue;
    const int64_t time = jobs_time(tried, v, multiprocessors);
    if (time < least) least = time, *f = tried;
  }
  return least == INT64_MAX ? least : 4500000 + least;
}

static bool pays(const Few &f, int64_t sum) {
  return f.groups <= GROUPS_MOST && (int64_t)f.pass.n * f.pass.jh * f.pass.jw >= PIXELS_LEAST &&
         (sum <= STEP || (f.pass.ic % 4 != 0 && f.pass.ic <= CHANNELS_MOST));
}

bool niti_mma_windows_serve(const NitiConv *c) {
  Few f;
  return niti_mma_first_serves(c) || plan(&f, c, 1) < INT64_MAX;
}

int64_t niti_mma_windows_time(const NitiConv *c, int multiprocessors) {
  Few f;
  if (niti_mma_first_serves(c)) return niti_mma_first_time(c);
  const int64_t time = plan(&f, c, multiprocessors);
  return time < INT64_MAX && pays(f, (int64_t)c->kh * c->kw * c->c) ? time : INT64_MAX;
}

void niti_mma_few(NitiCuda *cuda, NitiTensor *y, const NitiTensor *x, const NitiTensor *w, const int32_t *bias, const NitiConv *c,
                  bool relu, const NitiRequantise *requantise) {
  Few f = {};
  if (plan(&f, c, cuda->multiprocessors) == INT64_MAX) return; /* niti_mma_windows_serve said otherwise */
  const Variant v = variant_for(f);
  const size_t shared = shared_of(f);
  NitiMmaPass &p = f.pass;
  p.in = x->data;
  p.w = w->data;
  p.out = y->data;
  p.blocked = niti_cuda_is_blocked(y) ? niti_cuda_blocked(y) : NULL;
  p.columns = niti_divisor((uint32_t)p.jw);
  p.image_bits = 4;
  p.rq = niti_requantise_args(cuda, requantise, y->exponent, x->exponent, w->exponent, 0, relu);
  p.rq.bias = bias;
  f.windows.in = x->data;
  f.windows.end = x->data + niti_shape_count(x->shape);
  f.down = niti_divisor((uint32_t)parts_of(p.jh, f.height));
  const uint32_t most = (uint32_t)(cuda->multiprocessors * BLOCKS), grid = f.jobs < most ? f.jobs : most;
  const Kernel mma_few = v.kernel;
  p.second_blocks = grid;
  niti_cuda_note(
      cuda,
      niti_cuda_runtime.cudaFuncSetAttribute((const void *)mma_few, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared),
      "mma few: shared memory");
  niti_cuda_note(cuda,
                 niti_cuda_runtime.cudaFuncSetAttribute((const void *)mma_few, cudaFuncAttributePreferredSharedMemoryCarveout,
                                                        cudaSharedmemCarveoutMaxShared),
                 "mma few: shared memory");
  p.meets = niti_meeting_holds(cuda, (const void *)mma_few, THREADS, shared, grid);
  NITI_LAUNCH(cuda, mma_few, grid, THREADS, shared, f, false);
  if (!p.meets) {
    niti_cuda_share_range(cuda);
    NITI_LAUNCH(cuda, mma_few, grid, THREADS, shared, f, true);
  }
  niti_cuda_blocked_set(cuda, y, p.blocked != NULL);
}
