/* The weight gradient: a matrix product over pixels. A chunk of images is packed in parallel, x into padded planes of operand
 * elements, one for every channel (so that one row of any tap of an output image is OW consecutive elements), and the error into
 * panels; then tiles of (tap, input channel) x output channel are summed over the chunk and added to the gradient. */
#include <string.h>

#include "backend/cpu/conv_plan.h"
#include "base/round.h"

enum {
  CHUNK_BYTES = 8 * 1024 * 1024, /* packed x and error: a part of the last-level cache */
  INNER_POSITIONS = 1024,        /* summed at a time, so that a part's operands stay in the second-level cache */
  /* (tap, channel) rows of a part at most, a multiple of every tile's rows. Each part reads the whole chunk again, which costs
   * more than sums that leave the first-level cache. */
  PART_ROWS = 1152,
  PART_BLOCKS = 2, /* blocks of output channels of a part at most */
  PARTS_PER_THREAD = 3,
  FLAT_AREA = 64,     /* pixels of an output image at most, for a chunk to be one row */
  PACK_CHANNELS = 32, /* that the transposition takes at a time */
  PACK_POSITIONS = 16,
};

/* How the sum is cut and where its pieces lie in the workspace. Plane of one channel: [image][row][column], rows and columns with
 * their padding, and sorted by phase (number modulo the stride) so that those a tap reads are neighbours. Where the rows of small
 * images would fill groups badly, a chunk is flat: one row of all its output pixels, and every tap has a plane of each channel.
 */
typedef struct Plan {
  bool flat;
  size_t images;                            /* of a full chunk */
  size_t rows, columns, groups;             /* of an output image; groups of one of its rows */
  size_t plane_columns, plane_image, plane; /* elements of a row and of an image in a plane; bytes of a plane */
  size_t m;                                 /* KH * KW * C */
  size_t blocks, panel;                     /* of output channels; bytes of a full chunk's panel */
  size_t planes, panels, corrections, x_offsets, dy_offsets, row_offsets, zeros, threads; /* workspace offsets */
  size_t thread_bytes, total;
} Plan;

typedef struct Pass {
  NitiCpu *cpu;
  const NitiConvKernels *kernels;
  const NitiConv *conv;
  const Plan *plan;
  NitiGradient *gradient;
  const int8_t *dy, *x;
  size_t first, count;                        /* source images of this chunk */
  size_t images, columns, groups;             /* of this chunk: as in Plan, but a flat row is as long as the chunk */
  size_t images_step, rows_step, groups_step; /* of a piece: what is summed at a time */
  size_t begin, end;                          /* pieces to sum now */
  size_t part_rows, part_blocks;
} Pass;

typedef struct Piece {
  size_t image, images, row, rows, group, groups;
} Piece;

static size_t least(size_t a, size_t b) { return a < b ? a : b; }
static size_t most(size_t a, size_t b) { return a > b ? a : b; }
static size_t divide_up(size_t a, size_t b) { return (a + b - 1) / b; }
static size_t block_columns(const NitiConvKernels *kernels) { return (size_t)kernels->vectors * (size_t)kernels->lanes; }

/* One axis of a plane: elements of phases 0 .. phase - 1; all of them at phase = phases. Taps of a phase read its elements 0, 1
 * .. onwards. */
static size_t phases(int32_t taps, int32_t stride) { return (size_t)(taps < stride ? taps : stride); }
static size_t phase_size(int32_t out, int32_t taps, int32_t stride, size_t phase) {
  return (size_t)out + divide_up((size_t)taps - phase, (size_t)stride) - 1;
}
static size_t phase_first(int32_t out, int32_t taps, int32_t stride, size_t phase) {
  size_t first = 0;
  for (size_t p = 0; p < phase; ++p) first += phase_size(out, taps, stride, p);
  return first;
}

static Plan make_plan(const NitiConvKernels *kernels, const NitiConv *s, size_t threads) {
  const size_t element = (size_t)kernels->element, group = (size_t)kernels->group, columns = block_columns(kernels);
  const size_t area = (size_t)s->oh * (size_t)s->ow, c = (size_t)s->c, taps = (size_t)s->kh * (size_t)s->kw;
  Plan p = {0};
  p.rows = (size_t)s->oh;
  p.columns = (size_t)s->ow;
  p.groups = divide_up(p.columns, group);
  p.flat = area <= FLAT_AREA && 3 * p.groups * group >= 4 * p.columns; /* a quarter of the places or more would be padding */
  if (p.flat) p.rows = 1;
  p.plane_columns = phase_first(s->ow, s->kw, s->stride_w, phases(s->kw, s->stride_w));
  p.plane_image =
      niti_round_up(phase_first(s->oh, s->kh, s->stride_h, phases(s->kh, s->stride_h)) * p.plane_columns, PACK_POSITIONS);
  p.m = taps * c;
  p.blocks = divide_up((size_t)s->k, columns);

  const size_t x_image = p.flat ? taps * area : p.plane_image, dy_image = p.flat ? area : p.rows * p.groups * group;
  p.images = most(1, least(CHUNK_BYTES / ((c * x_image + p.blocks * columns * dy_image) * element), NITI_MAX_TERMS / area));
  p.images = least(p.images, (size_t)s->n);
  if (p.flat) {
    p.columns = p.images * area;
    p.groups = divide_up(p.columns, group);
    p.plane_columns = p.plane_image = niti_round_up(p.columns, PACK_POSITIONS);
  }
  const size_t packed_images = p.flat ? 1 : p.images, planes = p.flat ? p.m : c;
  p.plane = niti_line(p.plane_image * packed_images * element);
  p.plane += p.plane / 64 % 2 == 0 ? 64 : 0; /* an odd number of lines: planes do not compete for the same sets of a cache */
  p.panel = packed_images * p.rows * p.groups * group * element * columns;

  p.planes = 0;
  p.panels = p.planes + planes * p.plane + 64; /* the last group of the last row reads past */
  p.corrections = p.panels + p.blocks * p.panel;
  p.x_offsets = p.corrections + p.blocks * niti_line(columns * sizeof(int32_t));
  p.dy_offsets = p.x_offsets + niti_line((p.flat ? taps : 1) * p.plane_image * sizeof(size_t));
  p.row_offsets = p.dy_offsets + niti_line(p.rows * p.groups * group * sizeof(size_t));
  p.zeros = p.row_offsets + niti_line(p.m * sizeof(size_t));
  p.threads = p.zeros + niti_line(p.groups * group * element);
  p.thread_bytes = niti_line(PART_ROWS * PART_BLOCKS * columns * sizeof(int32_t));
  p.total = p.threads + threads * p.thread_bytes;
  return p;
}

size_t niti_conv_gradient_workspace(const NitiConvKernels *kernels, const NitiConv *s, int threads) {
  if (niti_gradient_linear_serves(kernels, s)) return niti_gradient_linear_workspace(kernels, s, threads);
  return make_plan(kernels, s, (size_t)threads).total;
}

static size_t *sizes_at(const Pass *p, size_t offset) { return (size_t *)(void *)(p->cpu->workspace + offset); }

static int columns_of(const Pass *p, size_t block) {
  return (int)least(block_columns(p->kernels), (size_t)p->conv->k - block * block_columns(p->kernels));
}
static int vectors_of(const Pass *p, size_t block) { return (columns_of(p, block) + p->kernels->lanes - 1) / p->kernels->lanes; }
static size_t lanes_of(const Pass *p, size_t block) { return (size_t)(vectors_of(p, block) * p->kernels->lanes); }

/* Where a block's panel holds this group of this row of this image. */
static uint8_t *panel_at(const Pass *p, size_t block, size_t image, size_t row, size_t group) {
  const size_t group_bytes = (size_t)(p->kernels->group * p->kernels->element) * lanes_of(p, block);
  return p->cpu->workspace + p->plan->panels + block * p->plan->panel +
         ((image * p->plan->rows + row) * p->groups + group) * group_bytes;
}

static int32_t *correction_of(const Pass *p, size_t block) {
  const size_t bytes = niti_line(block_columns(p->kernels) * sizeof(int32_t));
  return (int32_t *)(void *)(p->cpu->workspace + p->plan->corrections + block * bytes);
}

/* ---- packing ---- */

/* x_offsets: where an element of a plane's image lies in the source image, SIZE_MAX for padding. */
static void fill_x_offsets(const Pass *p) {
  const NitiConv *s = p->conv;
  size_t *x = sizes_at(p, p->plan->x_offsets), at = 0;
  for (size_t i = 0; i < p->plan->plane_image; ++i) x[i] = SIZE_MAX;
  for (size_t phase_y = 0; phase_y < phases(s->kh, s->stride_h); ++phase_y) {
    for (size_t row = 0; row < phase_size(s->oh, s->kh, s->stride_h, phase_y); ++row) {
      const int64_t iy = (int64_t)(row * (size_t)s->stride_h + phase_y) - s->pad_h;
      for (size_t phase_x = 0; phase_x < phases(s->kw, s->stride_w); ++phase_x) {
        for (size_t column = 0; column < phase_size(s->ow, s->kw, s->stride_w, phase_x); ++column, ++at) {
          const int64_t ix = (int64_t)(column * (size_t)s->stride_w + phase_x) - s->pad_w;
          if (iy >= 0 && iy < s->h && ix >= 0 && ix < s->w) x[at] = ((size_t)iy * (size_t)s->w + (size_t)ix) * (size_t)s->c;
        }
      }
    }
  }
}

/* dy_offsets: as x_offsets, for the positions of an image's panel; row_offsets: of row (tap, channel) in the planes. */
static void fill_tables(const Pass *p) {
  const Plan *plan = p->plan;
  const NitiConv *s = p->conv;
  const size_t c = (size_t)s->c, element = (size_t)p->kernels->element, padded = plan->groups * (size_t)p->kernels->group;
  size_t *dy = sizes_at(p, plan->dy_offsets), *row_offset = sizes_at(p, plan->row_offsets);
  for (size_t row = 0; row < plan->rows; ++row) {
    for (size_t i = 0; i < padded; ++i) {
      dy[row * padded + i] = i < plan->columns ? (row * plan->columns + i) * (size_t)s->k : SIZE_MAX;
    }
  }
  for (size_t ky = 0, m = 0; ky < (size_t)s->kh; ++ky) {
    const size_t row = phase_first(s->oh, s->kh, s->stride_h, ky % (size_t)s->stride_h) + ky / (size_t)s->stride_h;
    for (size_t kx = 0; kx < (size_t)s->kw; ++kx) {
      const size_t column = phase_first(s->ow, s->kw, s->stride_w, kx % (size_t)s->stride_w) + kx / (size_t)s->stride_w;
      for (size_t channel = 0; channel < c; ++channel, ++m) {
        row_offset[m] = plan->flat ? m * plan->plane : channel * plan->plane + (row * plan->plane_columns + column) * element;
      }
    }
  }
  memset(correction_of(p, 0), 0, plan->x_offsets - plan->corrections); /* unless correct_block finds others */
  p->kernels->zero(p->cpu->workspace + plan->zeros, padded);
  if (!plan->flat) fill_x_offsets(p);
}

/* Both tables of a flat chunk, for the last one ends earlier. x_offsets: a row for each tap. */
static void fill_flat_offsets(const Pass *p) {
  const NitiConv *s = p->conv;
  const size_t positions = niti_round_up(p->columns, PACK_POSITIONS), padded = p->groups * (size_t)p->kernels->group;
  size_t *x = sizes_at(p, p->plan->x_offsets), *dy = sizes_at(p, p->plan->dy_offsets);
  for (size_t i = 0; i < padded; ++i) dy[i] = i < p->columns ? i * (size_t)s->k : SIZE_MAX;
  for (int32_t ky = 0; ky < s->kh; ++ky) {
    for (int32_t kx = 0; kx < s->kw; ++kx, x += positions) {
      for (size_t i = 0; i < positions; ++i) {
        const size_t column = i % (size_t)s->ow, row = i / (size_t)s->ow % (size_t)s->oh,
                     image = i / (size_t)s->ow / (size_t)s->oh;
        const int64_t iy = (int64_t)row * s->stride_h + ky - s->pad_h, ix = (int64_t)column * s->stride_w + kx - s->pad_w;
        const bool there = i < p->columns && iy >= 0 && iy < s->h && ix >= 0 && ix < s->w;
        x[i] = there ? ((image * (size_t)s->h + (size_t)iy) * (size_t)s->w + (size_t)ix) * (size_t)s->c : SIZE_MAX;
      }
    }
  }
}

static size_t x_items(const Pass *p) {
  const size_t taps = (size_t)p->conv->kh * (size_t)p->conv->kw;
  return (p->plan->flat ? taps : p->images) * divide_up((size_t)p->conv->c, PACK_CHANNELS);
}

/* Items: first x by image (or tap of a flat chunk) and channels, then the error by image and block. */
static void pack_chunk(void *context, size_t thread, size_t item) {
  const Pass *p = context;
  const Plan *plan = p->plan;
  const NitiConv *s = p->conv;
  const size_t c = (size_t)s->c;
  (void)thread;
  if (item < x_items(p)) {
    const size_t parts = divide_up(c, PACK_CHANNELS), channel = item % parts * PACK_CHANNELS;
    const size_t tap = plan->flat ? item / parts : 0, image = plan->flat ? 0 : item / parts;
    const size_t positions = plan->flat ? niti_round_up(p->columns, PACK_POSITIONS) : plan->plane_image;
    const int8_t *x = p->x + (p->first + image) * (size_t)s->h * (size_t)s->w * c + channel;
    uint8_t *plane = p->cpu->workspace + plan->planes + (tap * c + channel) * plan->plane +
                     image * plan->plane_image * (size_t)p->kernels->element;
    p->kernels->transpose(plane, plan->plane, x, sizes_at(p, plan->x_offsets) + tap * positions, positions,
                          (int)least(PACK_CHANNELS, c - channel));
  } else {
    const size_t block = (item - x_items(p)) % plan->blocks, image = (item - x_items(p)) / plan->blocks;
    const int8_t *dy =
        p->dy + (p->first + image) * (size_t)s->oh * (size_t)s->ow * (size_t)s->k + block * block_columns(p->kernels);
    p->kernels->panel_across(panel_at(p, block, image, 0, 0), dy, sizes_at(p, plan->dy_offsets),
                             plan->rows * p->groups * (size_t)p->kernels->group, columns_of(p, block), (int)lanes_of(p, block));
  }
}

/* ---- sums ---- */

static size_t count_pieces(const Pass *p) {
  return divide_up(p->images, p->images_step) * divide_up(p->plan->rows, p->rows_step) * divide_up(p->groups, p->groups_step);
}

static Piece piece_at(const Pass *p, size_t index) {
  const size_t across = divide_up(p->groups, p->groups_step), down = divide_up(p->plan->rows, p->rows_step);
  Piece piece = {.group = index % across * p->groups_step,
                 .row = index / across % down * p->rows_step,
                 .image = index / across / down * p->images_step};
  piece.groups = least(p->groups_step, p->groups - piece.group);
  piece.rows = least(p->rows_step, p->plan->rows - piece.row);
  piece.images = least(p->images_step, p->images - piece.image);
  return piece;
}

/* What the operands' representation of zero adds to every sum, negated. */
static void correct_block(void *context, size_t thread, size_t block) {
  const Pass *p = context;
  const size_t none = 0;
  int32_t *sums = (int32_t *)(void *)(p->cpu->workspace + p->plan->threads + thread * p->plan->thread_bytes);
  int32_t *correction = correction_of(p, block);
  for (size_t column = 0; column < lanes_of(p, block); ++column) sums[column] = 0;
  niti_tiles_begin(p->kernels);
  for (size_t i = p->begin; i < p->end; ++i) {
    const Piece piece = piece_at(p, i);
    const NitiTile tile = {.acc = sums,
                           .init = sums,
                           .in = p->cpu->workspace + p->plan->zeros,
                           .row_offset = &none,
                           .panel = panel_at(p, block, piece.image, piece.row, piece.group),
                           .sets = piece.images,
                           .runs = piece.rows,
                           .groups = piece.groups,
                           .rows = 1,
                           .vectors = vectors_of(p, block)};
    p->kernels->tile(&tile);
  }
  niti_tiles_end(p->kernels);
  for (size_t column = 0; column < lanes_of(p, block); ++column) correction[column] = (int32_t)(0u - (uint32_t)sums[column]);
}

/* A part of the gradient: some rows (tap, channel) x some blocks of output channels. */
static void sum_part(void *context, size_t thread, size_t item) {
  const Pass *p = context;
  const Plan *plan = p->plan;
  const NitiConvKernels *kernels = p->kernels;
  const size_t columns = block_columns(kernels), across = divide_up(plan->blocks, p->part_blocks),
               element = (size_t)kernels->element;
  const size_t b0 = item % across * p->part_blocks, b1 = least(b0 + p->part_blocks, plan->blocks);
  const size_t m0 = item / across * p->part_rows, m1 = least(m0 + p->part_rows, plan->m);
  int32_t *acc = (int32_t *)(void *)(p->cpu->workspace + plan->threads + thread * plan->thread_bytes);
  niti_tiles_begin(kernels);
  for (size_t i = p->begin; i < p->end; ++i) {
    const Piece piece = piece_at(p, i);
    const size_t in = piece.image * plan->plane_image + piece.row * plan->plane_columns + piece.group * (size_t)kernels->group;
    for (size_t block = b0; block < b1; ++block) {
      const size_t stride = lanes_of(p, block), step = (size_t)kernels->rows[vectors_of(p, block)];
      NitiTile tile = {.in = p->cpu->workspace + plan->planes + in * element,
                       .panel = panel_at(p, block, piece.image, piece.row, piece.group),
                       .sets = piece.images,
                       .runs = piece.rows,
                       .groups = piece.groups,
                       .set_stride = plan->plane_image * element,
                       .run_stride = plan->plane_columns * element,
                       .vectors = vectors_of(p, block)};
      for (size_t m = m0; m < m1; m += step) {
        tile.acc = acc + (block - b0) * PART_ROWS * columns + (m - m0) * stride;
        tile.init = i == p->begin ? correction_of(p, block) : tile.acc;
        tile.init_stride = i == p->begin ? 0 : stride;
        tile.row_offset = sizes_at(p, plan->row_offsets) + m;
        tile.rows = (int)least(step, m1 - m);
        kernels->tile(&tile);
      }
    }
  }
  niti_tiles_end(kernels);
  for (size_t block = b0; block < b1; ++block) {
    const size_t at = block * columns * plan->m + m0;
    NitiGradient *g = p->gradient;
    void *gradient = g->bits == 32 ? (void *)((int32_t *)g->data + at) : (void *)((int64_t *)g->data + at);
    kernels->store(gradient, g->bits, p->first > 0 || p->begin > 0, plan->m, acc + (block - b0) * PART_ROWS * columns,
                   lanes_of(p, block), (int)(m1 - m0), columns_of(p, block));
  }
}

/* ---- the operation ---- */

/* The shape of this chunk, and of the pieces it is summed in: whole images, rows of one, or groups of one row. */
static void cut_chunk(Pass *p) {
  const Plan *plan = p->plan;
  const size_t inner = INNER_POSITIONS / (size_t)p->kernels->group;
  p->images = plan->flat ? 1 : p->count;
  p->columns = plan->flat ? p->count * (size_t)p->conv->oh * (size_t)p->conv->ow : plan->columns;
  p->groups = divide_up(p->columns, (size_t)p->kernels->group);
  p->groups_step = least(p->groups, inner);
  p->rows_step = most(1, least(plan->rows, inner / p->groups));
  p->images_step = p->rows_step == plan->rows ? most(1, inner / (plan->rows * p->groups)) : 1;
  if (plan->flat) fill_flat_offsets(p);
}

void niti_conv_gradient_tiles(NitiCpu *cpu, const NitiConvKernels *kernels, NitiGradient *gradient, const int8_t *dy,
                              const int8_t *x, const NitiConv *s) {
  const size_t threads = (size_t)niti_threads_count(cpu->threads);
  if (niti_gradient_linear_serves(kernels, s)) {
    niti_gradient_linear(cpu, kernels, gradient, dy, x, s);
    return;
  }
  const Plan plan = make_plan(kernels, s, threads);
  Pass p = {.cpu = cpu, .kernels = kernels, .conv = s, .plan = &plan, .gradient = gradient, .dy = dy, .x = x};
  fill_tables(&p);
  /* Parts: whole tiles, small enough that every thread gets several. */
  p.part_blocks = least(PART_BLOCKS, plan.blocks);
  const size_t tile_rows = (size_t)kernels->rows[vectors_of(&p, 0)], across = divide_up(plan.blocks, p.part_blocks);
  p.part_rows = niti_round_up(divide_up(plan.m * across, threads * PARTS_PER_THREAD), tile_rows);
  p.part_rows = least(p.part_rows, PART_ROWS / tile_rows * tile_rows);
  for (p.first = 0; p.first < (size_t)s->n; p.first += p.count) {
    p.count = least(plan.images, (size_t)s->n - p.first);
    cut_chunk(&p);
    niti_threads_run(cpu->threads, pack_chunk, &p, x_items(&p) + p.images * plan.blocks);
    /* All pieces at once, unless one image alone has more positions than an int32 sum may. */
    const size_t pieces = count_pieces(&p), at_once = NITI_MAX_TERMS / INNER_POSITIONS;
    for (p.begin = 0; p.begin < pieces; p.begin = p.end) {
      p.end = p.images > 1 || plan.flat ? pieces : least(p.begin + at_once, pieces);
      if (kernels->offset) niti_threads_run(cpu->threads, correct_block, &p, plan.blocks);
      niti_threads_run(cpu->threads, sum_part, &p, divide_up(plan.m, p.part_rows) * across);
    }
  }
}
