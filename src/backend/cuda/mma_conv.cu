/* The mma.sync family: convolutions as passes, and the choice of a kernel for each. */
#include "backend/cuda/meet.cuh"
#include "backend/cuda/mma.cuh"
#include "backend/cuda/mma_box.h"
#include "backend/cuda/mma_few.h"
#include "backend/cuda/mma_first.h"
#include "backend/cuda/pack.h"
#include "base/window.h"

enum {
  IMAGES = 12,            /* from this many on, rows are blocks of 16 images */
  NARROW_BYTES = 256,     /* of the sum, from which splitting it among warps pays */
  NARROW_OUTPUTS = 40000, /* up to which: small tiles read their operands more often */
  NARROW_ANY = 25000,     /* outputs up to which it pays whatever the sum */
  BOX_FEW = 64,           /* channels: where both are as many, products count more than copies */
  SMALL_TIME = 7000000,   /* picoseconds of narrow tiles of a small product, */
  SMALL_OUTPUT = 100,     /* of each of its outputs, */
  SMALL_SUM = 1300,       /* and of each byte of its sum */
  BACKWARD_PERCENT = 150, /* of what the models of tiles and boxes say, backward, */
  PHASES_PERCENT = 300,   /* and through strides, as measured on an H200 */
  BOX_LOOSE = 20000000,   /* picoseconds of other ways, from which on boxes store any channels */
  BOX_WIDE = 96,          /* channels: backward, from so many on, and with sums of */
  BOX_WIDE_SUM = 32,      /* up to so many bytes, tiles round and mask faster */
  BOX_MOST = 80,          /* percent of other ways' expected time, below which boxes take their place */
};

static size_t align_up(size_t bytes) { return (bytes + 255) / 256 * 256; }

static bool gathers(const NitiMmaPass *p) { return p->ic % 16 != 0; }

static size_t sum_bytes(const NitiMmaPass *p) { return (size_t)p->tap_rows * (size_t)p->tap_columns * (size_t)p->ic; }

static size_t pitch_of(const NitiMmaPass *p) {
  const size_t bytes = sum_bytes(p);
  return gathers(p) ? (bytes + NITI_MMA_GATHER_RUN - 1) / NITI_MMA_GATHER_RUN * NITI_MMA_GATHER_RUN : bytes;
}

static size_t weights_bytes(const NitiMmaPass *p) { return align_up((size_t)p->oc * pitch_of(p)); }

static size_t table_bytes(const NitiMmaPass *p) { return gathers(p) ? align_up(pitch_of(p) * sizeof(NitiMmaEntry)) : 0; }

static NitiMmaPass forward_pass(const NitiConv *s) {
  NitiMmaPass p = {};
  p.n = s->n, p.ih = s->h, p.iw = s->w, p.ic = s->c;
  p.jh = s->oh, p.jw = s->ow, p.oc = s->k;
  p.step_y = s->stride_h, p.step_x = s->stride_w, p.tap_y = -s->pad_h, p.tap_x = -s->pad_w;
  p.tap_rows = s->kh, p.tap_columns = s->kw;
  p.out_pixel = s->k;
  p.out_row = (int64_t)s->ow * s->k;
  p.out_image = s->oh * p.out_row;
  return p;
}

/* Backward to the input's pixels (y, x) with y % stride = phase_y, x % stride = phase_x: stride 1 over the deltas. */
static NitiMmaPass backward_pass(const NitiConv *s, int phase_y, int phase_x, NitiTaps *y, NitiTaps *x) {
  NitiMmaPass p = {};
  const NitiStridePhase in_y = niti_stride_phase(phase_y, s->h, s->kh, s->stride_h, s->pad_h);
  const NitiStridePhase in_x = niti_stride_phase(phase_x, s->w, s->kw, s->stride_w, s->pad_w);
  const bool any = in_y.taps > 0 && in_x.taps > 0;
  *y = NitiTaps{in_y.taps, in_y.last, s->stride_h};
  *x = NitiTaps{in_x.taps, in_x.last, s->stride_w};
  p.n = s->n, p.ih = s->oh, p.iw = s->ow, p.ic = s->k;
  p.jh = in_y.positions, p.jw = in_x.positions;
  p.oc = s->c;
  p.step_y = p.step_x = 1, p.tap_y = in_y.offset, p.tap_x = in_x.offset;
  p.tap_rows = any ? in_y.taps : 0;
  p.tap_columns = any ? in_x.taps : 0;
  p.out_base = ((int64_t)phase_y * s->w + phase_x) * s->c;
  p.out_pixel = (int64_t)s->stride_w * s->c;
  p.out_row = (int64_t)s->stride_h * s->w * s->c;
  p.out_image = (int64_t)s->h * s->w * s->c;
  return p;
}

/* Ways of a pass beside the family's own choice: tiles so wide, or narrow tiles that share the sum; and boxes, for all passes of
 * an operation; and forward by mma_first.cu or mma_few.cu. */
static const struct {
  const char *name;
  int columns; /* 0: niti_mma_narrow */
} pass_ways[] = {{"mma narrow", 0}, {"mma 16 wide", 16}, {"mma 32 wide", 32}, {"mma 64 wide", 64}, {"mma 128 wide", 128}};
enum { PASS_WAYS = sizeof pass_ways / sizeof *pass_ways, BOX_WAY, WINDOWS_WAY };

static bool box_serves(const NitiConv *, NitiDirection);

static int ways(NitiWay *ways, int count, const NitiConv *s, NitiDirection direction) {
  const int in = direction == NITI_FORWARD ? s->c : s->k, out = direction == NITI_FORWARD ? s->k : s->c;
  if (direction == NITI_GRADIENT) return niti_mma_gradient_ways(ways, count);
  for (int i = 0; i < PASS_WAYS; ++i) {
    const bool fits = pass_ways[i].columns > 0 ? niti_mma_tiles(out, pass_ways[i].columns) : in % 16 == 0;
    if (fits) count = niti_cuda_add_way(ways, count, i + 1, pass_ways[i].name);
  }
  if (box_serves(s, direction)) count = niti_cuda_add_way(ways, count, BOX_WAY, "mma box");
  if (direction != NITI_FORWARD || !niti_mma_windows_serve(s)) return count;
  return niti_cuda_add_way(ways, count, WINDOWS_WAY, "mma windows");
}

static int image_bits(const NitiMmaPass *p) { return p->n >= IMAGES || (int64_t)p->n * p->jh * p->jw >> 31 != 0 ? 4 : 0; }

static uint64_t rows_of(const NitiMmaPass *p) {
  const int bits = image_bits(p);
  const uint64_t blocks = ((uint64_t)p->n + (1u << bits) - 1) >> bits;
  return (blocks * (uint64_t)p->jh * (uint64_t)p->jw) << bits;
}

static void cut(NitiMmaPass *p, const NitiMmaVariant *v) {
  const uint32_t across = (uint32_t)((p->oc + v->columns - 1) / v->columns);
  p->tiles_across = niti_divisor(across);
  p->tiles = (uint32_t)((rows_of(p) + (uint64_t)v->rows - 1) / (uint64_t)v->rows) * across;
}

/* Whether tiles would be too few, and outputs too, or a sum is long enough to be shared among warps: as measured on an H200. */
static bool is_small(const NitiMmaPass *p, const NitiCuda *cuda) {
  NitiMmaPass tiled = *p;
  const NitiMmaVariant v = niti_mma_tiled(p->oc, false, 0);
  cut(&tiled, &v);
  const uint64_t outputs = rows_of(p) * (uint64_t)p->oc, most = sum_bytes(p) >= NARROW_BYTES ? NARROW_OUTPUTS : NARROW_ANY;
  return 2 * tiled.tiles <= (uint32_t)cuda->multiprocessors && outputs <= most;
}

/* What follows from the geometry. */
static void measure(NitiMmaPass *p) {
  p->in_row = p->iw * p->ic;
  p->in_image = (int64_t)p->ih * p->in_row;
  p->w_pitch = pitch_of(p);
  p->group = p->ic % NITI_MMA_RUN == 0 ? NITI_MMA_RUN : p->ic;
  if (!gathers(p)) {
    const uint32_t across = (uint32_t)(p->tap_columns > 0 ? p->tap_columns : 1);
    p->sum_rows = niti_small_divisor(across * (uint32_t)p->ic / 8);
    p->sum_groups = niti_small_divisor(across * (uint32_t)p->group / 8);
    p->sum_cells = niti_small_divisor((uint32_t)p->group / 8);
  }
  p->by_words = p->ic % 4 == 0;
  p->image_bits = image_bits(p);
  p->pixels = niti_divisor((uint32_t)p->jh * (uint32_t)p->jw);
  p->columns = niti_divisor((uint32_t)p->jw);
  p->taps = niti_divisor(p->tap_columns > 0 ? (uint32_t)p->tap_columns : 1);
  p->runs = niti_divisor(p->ic >= 16 ? (uint32_t)p->ic / 16 : 1);
}

/* The same, and the tiles. */
static NitiMmaVariant complete(NitiMmaPass *p, const NitiCuda *cuda, int way) {
  const bool gather = gathers(p);
  measure(p);
  const int columns = way > 0 ? pass_ways[way - 1].columns : 0;
  NitiMmaVariant v = way > 0 && columns == 0 ? niti_mma_narrow() : niti_mma_tiled(p->oc, gather, columns);
  cut(p, &v);
  if (way == 0 && !gather && is_small(p, cuda)) {
    v = niti_mma_narrow();
    cut(p, &v);
  }
  return v;
}

/* ---- the choice of a way ---- */

/* Picoseconds while so many tiles share a multiprocessor. Each waits for its first copies, for those of each stage of its sum,
 * and for its rounding, and has work that the others wait for. */
static int64_t tiles_time(int columns, int64_t stages, int64_t tiles) {
  return 24000 + 24400 * columns + stages * (93000 + 2960 * columns) + tiles * (647000 + stages * 97000);
}

/* Picoseconds that passes are expected to take in tiles so wide, packing apart; the constants are those of an H200, fitted to all
 * ways of the convolutions of four networks (docs/benchmarks.md). */
static int64_t time_of(const NitiMmaPass *passes, int count, int columns, int multiprocessors) {
  int64_t tiles = 0, stages = 0;
  const NitiMmaVariant v = niti_mma_tiled(passes->oc, false, columns);
  for (int i = 0; i < count; ++i) {
    NitiMmaPass p = passes[i];
    cut(&p, &v);
    tiles += p.tiles;
    stages += (int64_t)p.tiles * (int64_t)((sum_bytes(&p) + NITI_MMA_RUN - 1) / NITI_MMA_RUN);
  }
  const int64_t slots = (int64_t)multiprocessors * v.blocks, each = (stages + tiles / 2) / tiles;
  const int64_t full = tiles / slots, last = (tiles % slots + multiprocessors - 1) / multiprocessors;
  return 6090000 + full * tiles_time(columns, each, v.blocks) + (last > 0 ? tiles_time(columns, each, last) : 0);
}

/* Of narrow tiles. */
static int64_t small_time(const NitiMmaPass *p) {
  return SMALL_TIME + (int64_t)(rows_of(p) * (uint64_t)p->oc) * SMALL_OUTPUT + (int64_t)sum_bytes(p) * SMALL_SUM;
}

/* The fastest of tiles so wide, as expected; 0: one gathers, or is small; INT64_MAX: that, and the time is not known. The usual
 * width is kept where another gains less than what the model can tell. */
static int modelled(const NitiCuda *cuda, const NitiMmaPass *passes, int count, int64_t *picoseconds) {
  int best = 0;
  int64_t least = INT64_MAX;
  *picoseconds = INT64_MAX;
  for (int i = 0; i < count; ++i) {
    if (gathers(&passes[i])) return 0;
    if (!is_small(&passes[i], cuda)) continue;
    *picoseconds = small_time(&passes[i]);
    return 0;
  }
  for (int i = 0; i < PASS_WAYS && count > 0; ++i) {
    const int columns = pass_ways[i].columns;
    if (columns == 0 || !niti_mma_tiles(passes->oc, columns)) continue;
    const bool usual = columns == niti_mma_tiled(passes->oc, false, 0).columns;
    const int64_t time = time_of(passes, count, columns, cuda->multiprocessors), counted = usual ? time * 97 / 100 : time;
    if (counted < least) least = counted, *picoseconds = time, best = i + 1;
  }
  return best;
}

/* A direction's passes, which one launch can take; 0: there are too many. */
static int passes_of(const NitiConv *s, NitiDirection direction, NitiMmaPass *passes, NitiMmaBoxTaps *taps) {
  int count = 0;
  if (direction == NITI_FORWARD) {
    passes[0] = forward_pass(s);
    return 1;
  }
  if (s->stride_h * s->stride_w > NITI_MMA_PHASES) return 0;
  for (int phase = 0; phase < s->stride_h * s->stride_w; ++phase) {
    NitiTaps y, x;
    const NitiMmaPass p = backward_pass(s, phase / s->stride_w, phase % s->stride_w, &y, &x);
    if (p.jh == 0 || p.jw == 0) continue;
    taps[count] = NitiMmaBoxTaps{y, x};
    passes[count++] = p;
  }
  return count;
}

static bool box_serves(const NitiConv *s, NitiDirection direction) {
  NitiMmaPass passes[NITI_MMA_PHASES];
  NitiMmaBoxTaps taps[NITI_MMA_PHASES];
  const int count = passes_of(s, direction, passes, taps);
  for (int i = 0; i < count; ++i) {
    if (!niti_mma_box_serves(&passes[i])) return false;
  }
  return count > 0;
}

/* `way`, whose time is known, or boxes, where there are enough images for whole ones, and whole rows of channels to store or much
 * to do: with LeNet-5's 20 and 50 whole steps took longer, though each convolution by itself took less. */
static int or_box(const NitiCuda *cuda, const NitiMmaPass *passes, int count, int way, int64_t *picoseconds) {
  if (count == 0 || passes->n < IMAGES || *picoseconds == INT64_MAX) return way;
  if ((passes->oc % 16 != 0 && *picoseconds < BOX_LOOSE) || (passes->ic >= BOX_FEW && passes->oc >= BOX_FEW)) return way;
  const int64_t time = niti_mma_box_time(passes, count, cuda->multiprocessors);
  if (time >= *picoseconds / 100 * BOX_MOST) return way;
  *picoseconds = time;
  return BOX_WAY;
}

static int forward_way(const NitiCuda *cuda, const NitiConv *s, int64_t *picoseconds) {
  const NitiMmaPass p = forward_pass(s);
  const int way = or_box(cuda, &p, 1, modelled(cuda, &p, 1, picoseconds), picoseconds);
  const int64_t windows = niti_mma_windows_time(s, cuda->multiprocessors);
  if (windows == INT64_MAX || windows > *picoseconds) return way;
  *picoseconds = windows;
  return WINDOWS_WAY;
}

static int backward_way(const NitiCuda *cuda, const NitiConv *s, int64_t *picoseconds) {
  NitiMmaPass passes[NITI_MMA_PHASES];
  NitiMmaBoxTaps taps[NITI_MMA_PHASES];
  const int count = passes_of(s, NITI_BACKWARD, passes, taps), tiles = modelled(cuda, passes, count, picoseconds);
  const bool rounds = count == 1 && passes->oc >= BOX_WIDE && sum_bytes(passes) <= BOX_WIDE_SUM;
  const int way = rounds ? tiles : or_box(cuda, passes, count, tiles, picoseconds);
  bool small = count > 0;
  int64_t longest = 0;
  for (int i = 0; i < count; ++i) {
    const int64_t time = small_time(&passes[i]);
    small = small && !gathers(&passes[i]) && is_small(&passes[i], cuda);
    longest = time > longest ? time : longest;
  }
  const bool linear = s->h == 1 && s->w == 1 && s->kh == 1 && s->kw == 1;
  if (small)
    *picoseconds = longest;
  else if (*picoseconds < INT64_MAX && !linear)
    *picoseconds = *picoseconds / 100 * (count > 1 ? PHASES_PERCENT : BACKWARD_PERCENT);
  return way;
}

static int choose(const NitiCuda *cuda, const NitiConv *s, NitiDirection direction, int64_t *picoseconds) {
  if (direction == NITI_GRADIENT) return niti_mma_gradient_way(s, cuda->multiprocessors, picoseconds);
  return direction == NITI_FORWARD ? forward_way(cuda, s, picoseconds) : backward_way(cuda, s, picoseconds);
}

static uint32_t second_grid(uint32_t tiles, const NitiMmaVariant *v, const NitiCuda *cuda) {
  const uint32_t most = (uint32_t)(cuda->multiprocessors * v->blocks);
  return tiles < most ? tiles : most;
}

/* Room in shared memory for a variant's kernel. */
static void make_room(NitiCuda *cuda, const void *kernel, const NitiMmaVariant *v, bool gather) {
  if (v->shared == 0) return;
  niti_cuda_note(cuda, niti_cuda_runtime.cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, v->shared),
                 "mma_pass: shared memory");
  if (gather) return; /* gathering lives on the first-level cache */
  niti_cuda_note(cuda,
                 niti_cuda_runtime.cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                                        cudaSharedmemCarveoutMaxShared),
                 "mma_pass: shared memory");
}

/* Whether all tiles meet, a block each. */
static bool meets(NitiCuda *cuda, const void *kernel, const NitiMmaVariant *v, uint32_t tiles, bool gather) {
  if (gather || v->shared == 0) return tiles <= niti_meeting_most(cuda);
  make_room(cuda, kernel, v, false);
  return niti_meeting_holds(cuda, kernel, (unsigned)v->threads, (size_t)v->shared, tiles);
}

static void launch(NitiCuda *cuda, const NitiMmaPass *p, const NitiMmaVariant *v, bool second) {
  const NitiMmaKernel mma_pass = v->kernel;
  make_room(cuda, (const void *)mma_pass, v, gathers(p));
  NITI_LAUNCH(cuda, mma_pass, second ? second_grid(p->tiles, v, cuda) : p->tiles, (unsigned)v->threads, (size_t)v->shared, *p,
              second);
}

/* A pass that is all of its operation: one launch where its tiles meet, else two. */
static void run_alone(NitiCuda *cuda, NitiMmaPass *p, const NitiMmaVariant *v) {
  p->second_blocks = second_grid(p->tiles, v, cuda);
  p->meets = meets(cuda, (const void *)v->kernel, v, p->tiles, gathers(p));
  launch(cuda, p, v, false);
  if (p->meets) return;
  niti_cuda_share_range(cuda);
  launch(cuda, p, v, true);
}

static int8_t *blocked_of(const NitiTensor *t, const NitiConv *s) {
  return niti_cuda_is_blocked(t) && s->n >= IMAGES ? niti_cuda_blocked(t) : NULL;
}

/* A pass's packed weights and table, behind which the next pass's are. */
static const int8_t *take(NitiMmaPass *p, const int8_t *packed) {
  p->w = packed;
  p->table = (const NitiMmaEntry *)(const void *)(packed + weights_bytes(p));
  return packed + weights_bytes(p) + table_bytes(p);
}

/* What packs them at `to`; how: kind, w and taps. Returns where the next pass's are. */
static int8_t *add_pack(NitiPacks *packs, const NitiMmaPass *p, int8_t *to, NitiPack how) {
  how.to = to;
  how.pitch = pitch_of(p);
  niti_packs_add(packs, &how);
  how.kind = NITI_PACK_TABLE;
  how.to = to + weights_bytes(p);
  how.c = p->ic;
  how.in_row = p->iw * p->ic;
  if (gathers(p)) niti_packs_add(packs, &how);
  return to + weights_bytes(p) + table_bytes(p);
}

static void pack(NitiPacks *packs, int8_t *to, const int8_t *w, int own, const NitiConv *s, NitiDirection direction, int way) {
  int64_t time;
  if (way == 0) way = choose(packs->cuda, s, direction, &time);
  if (way == BOX_WAY || way == WINDOWS_WAY) return; /* their kernels lay weights out by themselves */
  NitiPack how = {NULL, w, 0, NITI_PACK_ROWS, s->k, own, s->c, s->kh, s->kw, {s->kh, 0, -1}, {s->kw, 0, -1}, 0, 0};
  if (direction == NITI_FORWARD) {
    const NitiMmaPass p = forward_pass(s);
    if (gathers(&p)) (void)add_pack(packs, &p, to, how);
    return;
  }
  how.kind = NITI_PACK_TURNED;
  for (int phase = 0; phase < s->stride_h * s->stride_w; ++phase) {
    const NitiMmaPass p = backward_pass(s, phase / s->stride_w, phase % s->stride_w, &how.y, &how.x);
    if (p.jh > 0 && p.jw > 0) to = add_pack(packs, &p, to, how);
  }
}

static void forward(NitiCuda *cuda, NitiTensor *y, const NitiTensor *x, const NitiTensor *w, const NitiCudaBias *bias,
                    const int8_t *packed, const NitiConv *s, bool relu, const NitiRequantise *rq, int way) {
  int64_t time;
  if (way == 0) way = choose(cuda, s, NITI_FORWARD, &time);
  if (way == WINDOWS_WAY) {
    const int32_t *added = niti_cuda_bias_prepare(cuda, bias, x, w);
    if (niti_mma_first_serves(s))
      niti_mma_first(cuda, y, x, w, added, s, relu, rq);
    else
      niti_mma_few(cuda, y, x, w, added, s, relu, rq);
    return;
  }
  NitiMmaPass p = forward_pass(s);
  p.in = x->data;
  p.w = w->data;
  p.out = y->data;
  p.blocked = blocked_of(y, s);
  p.rq = niti_requantise_args(cuda, rq, y->exponent, x->exponent, w->exponent, 0, relu);
  niti_cuda_blocked_set(cuda, y, p.blocked != NULL);
  if (way == BOX_WAY) {
    measure(&p);
    p.rq.bias = niti_cuda_bias_prepare(cuda, bias, x, w);
    niti_mma_box(cuda, &p, NULL, 1, s, w->shape.n);
    return;
  }
  const NitiMmaVariant v = complete(&p, cuda, way);
  if (gathers(&p)) (void)take(&p, packed);
  if (bias->of && bias->centred && v.centres)
    p.rq.means = (const int64_t *)(const void *)bias->of->data;
  else
    p.rq.bias = niti_cuda_bias_prepare(cuda, bias, x, w);
  run_alone(cuda, &p, &v);
}

typedef struct Backward {
  NitiTensor *dx;
  const NitiTensor *dy, *w, *mask;
  const int8_t *packed;
  const NitiConv *s;
  const NitiRequantise *rq;
  int way;
} Backward;

/* A phase's operands. */
static void place(NitiCuda *cuda, const Backward *b, NitiMmaPass *p) {
  p->in = b->dy->data;
  p->out = b->dx->data;
  p->blocked = blocked_of(b->dx, b->s);
  p->mask = b->mask ? b->mask->data : NULL;
  p->rq = niti_requantise_args(cuda, b->rq, b->dx->exponent, b->dy->exponent, b->w->exponent, 0, false);
  niti_requantise_limit(&p->rq, b->mask);
}

/* A phase's pass; `packed` moves on. False: the phase has no pixels. */
static bool make_phase(NitiCuda *cuda, const Backward *b, int phase, const int8_t **packed, NitiMmaPass *p, NitiMmaVariant *v) {
  const NitiConv *s = b->s;
  NitiTaps y, x;
  *p = backward_pass(s, phase / s->stride_w, phase % s->stride_w, &y, &x);
  if (p->jh == 0 || p->jw == 0) return false;
  *v = complete(p, cuda, b->way);
  place(cuda, b, p);
  *packed = take(p, *packed);
  return true;
}

/* Places a pass among the others, those with long sums first, so that the last tiles to end are short. */
static void insert(NitiMmaPhases *phases, int count, const NitiMmaPass *p) {
  int i = count;
  for (; i > 0 && sum_bytes(&phases->pass[i - 1]) < sum_bytes(p); --i) phases->pass[i] = phases->pass[i - 1];
  phases->pass[i] = *p;
}

/* All phases in one launch: their passes, and how many. 0: there are too many, or not all have the same kernel. */
static int lay_together(NitiCuda *cuda, const Backward *b, NitiMmaPhases *phases, NitiMmaVariant *v) {
  const int all = b->s->stride_h * b->s->stride_w;
  const int8_t *packed = b->packed;
  int count = 0;
  for (int phase = 0; phase < all; ++phase) {
    NitiMmaPass p;
    NitiMmaVariant own;
    if (all > NITI_MMA_PHASES) return 0;
    if (!make_phase(cuda, b, phase, &packed, &p, &own)) continue;
    if (!own.phased || (count > 0 && own.phased != v->phased)) return 0;
    *v = own;
    insert(phases, count++, &p);
  }
  for (int i = 0; i < NITI_MMA_PHASES; ++i) {
    phases->from[i] = phases->tiles;
    if (i < count) phases->tiles += phases->pass[i].tiles;
  }
  return count;
}

static bool backward_together(NitiCuda *cuda, const Backward *b) {
  NitiMmaPhases phases = {};
  NitiMmaVariant v = {};
  const int count = lay_together(cuda, b, &phases, &v);
  if (count == 0) return false;
  const uint32_t second_blocks = second_grid(phases.tiles, &v, cuda);
  for (int i = 0; i < count; ++i) phases.pass[i].second_blocks = second_blocks;
  const NitiMmaPhasedKernel mma_phases = v.phased;
  const bool meet = meets(cuda, (const void *)mma_phases, &v, phases.tiles, false);
  for (int i = 0; i < count; ++i) phases.pass[i].meets = meet;
  NITI_LAUNCH(cuda, mma_phases, phases.tiles, (unsigned)v.threads, (size_t)v.shared, phases, false);
  if (meet) return true;
  niti_cuda_share_range(cuda);
  NITI_LAUNCH(cuda, mma_phases, second_blocks, (unsigned)v.threads, (size_t)v.shared, phases, true);
  return true;
}

/* Without strides there is one phase. */
static bool backward_alone(NitiCuda *cuda, const Backward *b) {
  const int8_t *packed = b->packed;
  NitiMmaPass p;
  NitiMmaVariant v;
  if (b->s->stride_h * b->s->stride_w > 1 || !make_phase(cuda, b, 0, &packed, &p, &v)) return false;
  run_alone(cuda, &p, &v);
  return true;
}

static void backward_in_turn(NitiCuda *cuda, const Backward *b) {
  uint32_t second_blocks = 0;
  for (int second = 0; second < 2; ++second) {
    if (second) niti_cuda_share_range(cuda);
    const int8_t *packed = b->packed;
    for (int phase = 0; phase < b->s->stride_h * b->s->stride_w; ++phase) {
      NitiMmaPass p;
      NitiMmaVariant v;
      if (!make_phase(cuda, b, phase, &packed, &p, &v)) continue;
      p.second_blocks = second_blocks; /* complete by the second launches */
      if (!second) second_blocks += second_grid(p.tiles, &v, cuda);
      launch(cuda, &p, &v, second != 0);
    }
  }
}

static void backward_boxes(NitiCuda *cuda, const Backward *b) {
  NitiMmaPass passes[NITI_MMA_PHASES];
  NitiMmaBoxTaps taps[NITI_MMA_PHASES];
  const int count = passes_of(b->s, NITI_BACKWARD, passes, taps);
  for (int i = 0; i < count; ++i) {
    measure(&passes[i]);
    place(cuda, b, &passes[i]);
    passes[i].w = b->w->data;
  }
  niti_mma_box(cuda, passes, taps, count, b->s, b->w->shape.n);
}

/* Every phase of the strides is a pass of its own; all together are one requantising operation. */
static void backward(NitiCuda *cuda, NitiTensor *dx, const NitiTensor *dy, const NitiTensor *w, const NitiTensor *mask,
                     const int8_t *packed, const NitiConv *s, const NitiRequantise *rq, int way) {
  int64_t time;
  const Backward b = {dx, dy, w, mask, packed, s, rq, way > 0 ? way : choose(cuda, s, NITI_BACKWARD, &time)};
  if (b.way == BOX_WAY)
    backward_boxes(cuda, &b);
  else if (!backward_alone(cuda, &b) && !backward_together(cuda, &b))
    backward_in_turn(cuda, &b);
  niti_cuda_blocked_set(cuda, dx, blocked_of(dx, s) != NULL);
}

static size_t workspace(const NitiCuda *cuda, const NitiConv *s, NitiDirection direction) {
  (void)cuda;
  const NitiMmaPass p = forward_pass(s);
  size_t back = 0;
  if (direction == NITI_GRADIENT) return 0;
  if (direction == NITI_FORWARD) return gathers(&p) ? weights_bytes(&p) + table_bytes(&p) : 0;
  for (int phase = 0; phase < s->stride_h * s->stride_w; ++phase) {
    NitiTaps y, x;
    const NitiMmaPass one = backward_pass(s, phase / s->stride_w, phase % s->stride_w, &y, &x);
    back += weights_bytes(&one) + table_bytes(&one);
  }
  return back;
}

static bool serves(const NitiConv *s) {
  (void)s;
  return true;
}

const NitiCudaConv niti_cuda_conv_mma = {"mma", serves, serves,  serves,   workspace,        pack,
                                         ways,  choose, forward, backward, niti_mma_gradient};
