/* The weight gradient: a matrix product over pixels. A chunk of images is packed in parallel, x into planes of operand elements
 * (one for every kernel column and channel, so that any tap of an output image is OH * OW contiguous elements) and the error into
 * panels; then tiles of (tap, input channel) x output channel are summed over the chunk and added to the gradient. */
#include "backend/cpu/conv.h"

#include "base/round.h"

enum {
  CHUNK_BYTES = 12 * 1024 * 1024, /* packed x and error: a part of the last-level cache */
  INNER_POSITIONS = 1024,         /* summed at a time, so that a part's operands stay in the second-level cache */
  PART_ROWS = 96,                 /* (tap, channel) rows of a part at most, a multiple of every tile's rows */
  PART_BLOCKS = 2,                /* blocks of output channels of a part at most */
  PARTS_PER_THREAD = 16,
  PACK_CHANNELS = 32,             /* that the transposition takes at a time */
};

/* How the sum is cut and where its pieces lie in the workspace. A run is an image's positions; where the kernel is one tap on images
 * of one pixel (linear layers), the whole chunk is one run. Offsets and strides in bytes unless they say elements. */
typedef struct Plan {
  bool single;                  /* the whole chunk is one run */
  size_t images;                /* of a full chunk */
  size_t positions, groups;     /* of a run of a full chunk */
  size_t plane_image, plane;    /* elements of an image in a plane; bytes of a plane */
  size_t rows_m;                /* KH * KW * C */
  size_t blocks, panel;         /* of output channels; bytes of a full chunk's panel */
  size_t planes, panels, corrections, x_offsets, dy_offsets, row_offsets, run_offsets, zeros, threads; /* workspace offsets */
  size_t thread_bytes, total;
} Plan;

typedef struct Pass {
  NitiCpu *cpu;
  const NitiConvKernels *kernels;
  const NitiConv *conv;
  const Plan *plan;
  NitiGradient *gradient;
  const int8_t *dy, *x;
  size_t first, count;          /* images of this chunk */
  size_t runs, positions, groups; /* of this chunk */
  size_t begin, end;              /* groups of every run to sum now: all, unless one image alone exceeds NITI_MAX_TERMS */
  size_t part_rows, part_blocks;
} Pass;

static size_t least(size_t a, size_t b) { return a < b ? a : b; }
static size_t most(size_t a, size_t b) { return a > b ? a : b; }
static size_t divide_up(size_t a, size_t b) { return (a + b - 1) / b; }
static size_t block_columns(const NitiConvKernels *kernels) { return (size_t)kernels->vectors * (size_t)kernels->lanes; }

/* Planes keep the rows of one vertical phase (input row + pad mod stride) together: a tap's rows are then consecutive. */
static size_t phases(const NitiConv *s) { return (size_t)(s->kh < s->stride_h ? s->kh : s->stride_h); }
static size_t phase_rows(const NitiConv *s, size_t phase) {
  return (size_t)s->oh + divide_up((size_t)s->kh - phase, (size_t)s->stride_h) - 1;
}
static size_t phase_first(const NitiConv *s, size_t phase) {
  size_t rows = 0;
  for (size_t p = 0; p < phase; ++p) rows += phase_rows(s, p);
  return rows;
}

static Plan make_plan(const NitiConvKernels *kernels, const NitiConv *s, size_t threads) {
  const size_t element = (size_t)kernels->element, group = (size_t)kernels->group, columns = block_columns(kernels);
  const size_t area = (size_t)s->oh * (size_t)s->ow, c = (size_t)s->c, kw = (size_t)s->kw;
  Plan p = {0};
  p.single = area == 1 && s->kh == 1 && s->kw == 1 && s->h == 1 && s->w == 1 && s->pad_h == 0 && s->pad_w == 0;
  p.rows_m = (size_t)s->kh * kw * c;
  p.blocks = divide_up((size_t)s->k, columns);

  const size_t plane_rows = phase_first(s, phases(s));
  const size_t x_image = p.single ? 1 : niti_round_up(plane_rows * (size_t)s->ow, 16);
  const size_t dy_image = p.single ? 1 : niti_round_up(area, group);
  const size_t image_bytes = (kw * c * x_image + p.blocks * columns * dy_image) * element;
  p.images = most(1, least(CHUNK_BYTES / image_bytes, NITI_MAX_TERMS / area));
  p.images = least(p.images, (size_t)s->n);
  p.positions = p.single ? p.images : area;
  p.groups = divide_up(p.positions, group);
  p.plane_image = p.single ? niti_round_up(p.images, 16) : x_image;
  p.plane = niti_line(p.plane_image * (p.single ? 1 : p.images) * element);
  p.plane += p.plane / 64 % 2 == 0 ? 64 : 0; /* an odd number of lines: planes do not compete for the same sets of a cache */
  p.panel = (p.single ? 1 : p.images) * p.groups * group * element * columns;

  p.planes = 0;
  p.panels = p.planes + kw * c * p.plane + 64; /* the last group of the last run reads past */
  p.corrections = p.panels + p.blocks * p.panel;
  p.x_offsets = p.corrections + p.blocks * niti_line(columns * sizeof(int32_t));
  p.dy_offsets = p.x_offsets + niti_line(kw * p.plane_image * sizeof(size_t));
  p.row_offsets = p.dy_offsets + niti_line(p.positions * sizeof(size_t));
  p.run_offsets = p.row_offsets + niti_line((p.rows_m + NITI_TILE_ROWS) * sizeof(size_t));
  p.zeros = p.run_offsets + niti_line(p.images * sizeof(size_t));
  p.threads = p.zeros + niti_line(p.groups * group * element);
  p.thread_bytes = niti_line(PART_ROWS * PART_BLOCKS * columns * sizeof(int32_t));
  p.total = p.threads + threads * p.thread_bytes;
  return p;
}

size_t niti_conv_gradient_workspace(const NitiConvKernels *kernels, const NitiConv *s, int threads) {
  return make_plan(kernels, s, (size_t)threads).total;
}

static size_t *sizes_at(const Pass *p, size_t offset) { return (size_t *)(void *)(p->cpu->workspace + offset); }

static int columns_of(const Pass *p, size_t block) {
  return (int)least(block_columns(p->kernels), (size_t)p->conv->k - block * block_columns(p->kernels));
}
static int vectors_of(const Pass *p, size_t block) { return (columns_of(p, block) + p->kernels->lanes - 1) / p->kernels->lanes; }

static size_t run_bytes(const Pass *p, size_t block) {
  return p->groups * (size_t)p->kernels->group * (size_t)p->kernels->element * (size_t)(vectors_of(p, block) * p->kernels->lanes);
}

static int32_t *correction_of(const Pass *p, size_t block) {
  return (int32_t *)(void *)(p->cpu->workspace + p->plan->corrections +
                             block * niti_line(block_columns(p->kernels) * sizeof(int32_t)));
}

/* Offset tables, the same for every chunk. */
static void fill_tables(const Pass *p) {
  const Plan *plan = p->plan;
  const NitiConv *s = p->conv;
  const size_t c = (size_t)s->c, kw = (size_t)s->kw, element = (size_t)p->kernels->element;
  size_t *x = sizes_at(p, plan->x_offsets), *dy = sizes_at(p, plan->dy_offsets), *row = sizes_at(p, plan->row_offsets);
  size_t *run = sizes_at(p, plan->run_offsets);
  for (size_t i = 0; i < kw * plan->plane_image; ++i) x[i] = SIZE_MAX;
  if (plan->single) {
    for (size_t i = 0; i < plan->positions; ++i) x[i] = i * c;
  } else {
    for (size_t kx = 0; kx < kw; ++kx) {
      size_t at = kx * plan->plane_image;
      for (size_t phase = 0; phase < phases(s); ++phase) {
        for (size_t q = 0; q < phase_rows(s, phase); ++q) {
          const int64_t iy = (int64_t)(q * (size_t)s->stride_h + phase) - s->pad_h;
          for (int64_t ox = 0; ox < s->ow; ++ox, ++at) {
            const int64_t ix = ox * s->stride_w + (int64_t)kx - s->pad_w;
            if (iy >= 0 && iy < s->h && ix >= 0 && ix < s->w) x[at] = ((size_t)iy * (size_t)s->w + (size_t)ix) * c;
          }
        }
      }
    }
  }
  for (size_t i = 0; i < plan->positions; ++i) dy[i] = i * (size_t)s->k;
  for (size_t ky = 0, m = 0; ky < (size_t)s->kh; ++ky) {
    const size_t phase = ky % (size_t)s->stride_h;
    const size_t first = (phase_first(s, phase) + ky / (size_t)s->stride_h) * (size_t)s->ow * element;
    for (size_t kx = 0; kx < kw; ++kx) {
      for (size_t channel = 0; channel < c; ++channel, ++m) row[m] = (kx * c + channel) * plan->plane + first;
    }
  }
  for (size_t i = 0; i < plan->images; ++i) run[i] = i * plan->plane_image * element;
  p->kernels->zero(p->cpu->workspace + plan->zeros, plan->groups * (size_t)p->kernels->group);
}

static size_t x_items(const Pass *p) { return p->runs * divide_up((size_t)p->conv->c, PACK_CHANNELS); }

/* Items: first x by image and channels, then the error by image and block. */
static void pack_chunk(void *context, size_t thread, size_t item) {
  const Pass *p = context;
  const Plan *plan = p->plan;
  const NitiConv *s = p->conv;
  const size_t element = (size_t)p->kernels->element, c = (size_t)s->c;
  (void)thread;
  if (item < x_items(p)) {
    const size_t parts = divide_up(c, PACK_CHANNELS), run = item / parts, channel = item % parts * PACK_CHANNELS;
    const size_t positions = plan->single ? niti_round_up(p->positions, 16) : plan->plane_image;
    const int8_t *x = p->x + (p->first + run) * (size_t)s->h * (size_t)s->w * c + channel;
    for (size_t kx = 0; kx < (size_t)s->kw; ++kx) {
      uint8_t *plane = p->cpu->workspace + plan->planes + (kx * c + channel) * plan->plane + run * plan->plane_image * element;
      p->kernels->transpose(plane, plan->plane, x, sizes_at(p, plan->x_offsets) + kx * plan->plane_image, positions,
                            (int)least(PACK_CHANNELS, c - channel));
    }
  } else {
    const size_t block = (item - x_items(p)) % plan->blocks, run = (item - x_items(p)) / plan->blocks;
    const size_t area = (size_t)s->oh * (size_t)s->ow;
    const int8_t *dy = p->dy + (p->first + run) * area * (size_t)s->k + block * block_columns(p->kernels);
    p->kernels->panel_across(p->cpu->workspace + plan->panels + block * plan->panel + run * run_bytes(p, block), dy,
                             sizes_at(p, plan->dy_offsets), p->positions, columns_of(p, block),
                             vectors_of(p, block) * p->kernels->lanes);
  }
}

/* What the operands' representation of zero adds to every sum of this chunk, negated. */
static void correct_block(void *context, size_t thread, size_t block) {
  const Pass *p = context;
  const size_t columns = block_columns(p->kernels), none = 0;
  int32_t *sums = (int32_t *)(void *)(p->cpu->workspace + p->plan->threads + thread * p->plan->thread_bytes);
  int32_t *correction = correction_of(p, block);
  for (size_t column = 0; column < columns; ++column) sums[column] = 0;
  for (size_t run = 0; run < p->runs; ++run) {
    const NitiTile tile = {.acc = sums, .init = sums, .in = p->cpu->workspace + p->plan->zeros, .row_offset = &none, .run_offset = &none,
                           .panel = p->cpu->workspace + p->plan->panels + block * p->plan->panel + run * run_bytes(p, block) +
                                    run_bytes(p, block) / p->groups * p->begin,
                           .runs = 1, .groups = p->end - p->begin, .rows = 1, .vectors = vectors_of(p, block)};
    p->kernels->tile(&tile);
  }
  for (size_t column = 0; column < columns; ++column) correction[column] = (int32_t)(0u - (uint32_t)sums[column]);
}

static void sum_part(void *context, size_t thread, size_t item) {
  const Pass *p = context;
  const Plan *plan = p->plan;
  const NitiConvKernels *kernels = p->kernels;
  const size_t columns = block_columns(kernels), wide = divide_up(plan->blocks, p->part_blocks);
  const size_t b0 = item % wide * p->part_blocks, b1 = least(b0 + p->part_blocks, plan->blocks);
  const size_t m0 = item / wide * p->part_rows, m1 = least(m0 + p->part_rows, plan->rows_m);
  int32_t *acc = (int32_t *)(void *)(p->cpu->workspace + plan->threads + thread * plan->thread_bytes);
  /* A long run is cut too; its pieces are runs of their own. */
  const size_t inner_groups = INNER_POSITIONS / (size_t)kernels->group;
  const size_t inner_runs = most(1, inner_groups / p->groups), run_step = (size_t)kernels->group * (size_t)kernels->element;
  for (size_t run = 0; run < p->runs; run += inner_runs) {
    for (size_t g0 = p->begin; g0 < p->end; g0 += inner_groups) {
      for (size_t block = b0; block < b1; ++block) {
        const int vectors = vectors_of(p, block);
        const size_t stride = (size_t)(vectors * kernels->lanes), step = (size_t)kernels->rows[vectors];
        NitiTile tile = {.in = p->cpu->workspace + plan->planes + g0 * run_step,
                         .panel = p->cpu->workspace + plan->panels + block * plan->panel + run * run_bytes(p, block) +
                                  g0 * run_step * stride,
                         .run_offset = sizes_at(p, plan->run_offsets) + run,
                         .runs = least(inner_runs, p->runs - run),
                         .groups = least(inner_groups, p->end - g0),
                         .vectors = vectors};
        for (size_t m = m0; m < m1; m += step) {
          tile.acc = acc + (block - b0) * PART_ROWS * columns + (m - m0) * stride;
          tile.init = run == 0 && g0 == p->begin ? correction_of(p, block) : tile.acc;
          tile.init_stride = run == 0 && g0 == p->begin ? 0 : stride;
          tile.row_offset = sizes_at(p, plan->row_offsets) + m;
          tile.rows = (int)least(step, m1 - m);
          kernels->tile(&tile);
        }
      }
    }
  }
  for (size_t block = b0; block < b1; ++block) {
    const size_t stride = (size_t)(vectors_of(p, block) * kernels->lanes);
    const size_t at = block * columns * plan->rows_m + m0;
    void *gradient = p->gradient->bits == 32 ? (void *)((int32_t *)p->gradient->data + at) : (void *)((int64_t *)p->gradient->data + at);
    kernels->store(gradient, p->gradient->bits, p->first > 0 || p->begin > 0, plan->rows_m, acc + (block - b0) * PART_ROWS * columns, stride,
                   (int)(m1 - m0), columns_of(p, block));
  }
}

void niti_conv_gradient_tiles(NitiCpu *cpu, const NitiConvKernels *kernels, NitiGradient *gradient, const int8_t *dy,
                              const int8_t *x, const NitiConv *s) {
  const size_t threads = (size_t)niti_threads_count(cpu->threads);
  const Plan plan = make_plan(kernels, s, threads);
  Pass p = {.cpu = cpu, .kernels = kernels, .conv = s, .plan = &plan, .gradient = gradient, .dy = dy, .x = x};
  fill_tables(&p);
  /* Parts: whole tiles, small enough that every thread gets several. */
  const size_t tile_rows = (size_t)kernels->rows[least((size_t)kernels->vectors, divide_up((size_t)s->k, (size_t)kernels->lanes))];
  p.part_blocks = least(PART_BLOCKS, plan.blocks);
  p.part_rows = niti_round_up(divide_up(plan.rows_m * divide_up(plan.blocks, p.part_blocks), threads * PARTS_PER_THREAD), tile_rows);
  p.part_rows = least(p.part_rows, PART_ROWS / tile_rows * tile_rows);
  for (p.first = 0; p.first < (size_t)s->n; p.first += p.count) {
    p.count = least(plan.images, (size_t)s->n - p.first);
    p.runs = plan.single ? 1 : p.count;
    p.positions = plan.single ? p.count : plan.positions;
    p.groups = divide_up(p.positions, (size_t)kernels->group);
    niti_threads_run(cpu->threads, pack_chunk, &p, x_items(&p) + p.runs * plan.blocks);
    const size_t most_groups = p.runs == 1 ? NITI_MAX_TERMS / (size_t)kernels->group : p.groups;
    for (p.begin = 0; p.begin < p.groups; p.begin = p.end) {
      p.end = least(p.begin + most_groups, p.groups);
      niti_threads_run(cpu->threads, correct_block, &p, plan.blocks);
      niti_threads_run(cpu->threads, sum_part, &p, divide_up(plan.rows_m, p.part_rows) * divide_up(plan.blocks, p.part_blocks));
    }
  }
}
