/* The weight gradient: a matrix product over pixels. A chunk of images is packed in parallel, x into padded planes of operand
 * elements, one per channel (so that one row of any tap of an output image is OW consecutive elements), and dy into panels;
 * then tiles of (tap, input channel) x output channel are summed over the chunk and added to the gradient. */
#include "backend/cpu/conv_plan.h"
#include "base/bounds.h"

enum {
  CHUNK_BYTES = 8 * 1024 * 1024, /* packed x and dy: a part of the last-level cache */
  INNER_POSITIONS = 1024,        /* summed at a time, so that a part's operands stay in the second-level cache */
  /* maximum (tap, channel) rows of a part, a multiple of every tile's rows. Each part reads the whole chunk again, which costs
   * more than sums that leave the first-level cache. */
  PART_ROWS = 1152,
  PART_PANELS = 2, /* maximum panels of output channels of a part */
  PARTS_PER_THREAD = 3,
  FLAT_AREA = 64,     /* maximum pixels of an output image for a chunk to be one row */
  PACK_CHANNELS = 32, /* that the transposition processes at a time */
  PACK_POSITIONS = 16,
};

/* A full chunk, or the last one if it has fewer images. */
typedef struct Chunk {
  size_t count;                               /* source images */
  size_t images, columns, groups;             /* as packed: a flat chunk is one image */
  size_t images_step, rows_step, groups_step; /* of a piece: what is summed at a time */
  size_t *x_offset;  /* offset of an element of a plane's image in the source image, SIZE_MAX for padding; flat: per tap */
  size_t *dy_offset; /* the same for the positions of an image's panel */
} Chunk;

/* How the sum is divided. Plane of one channel: [image][row][column], rows and columns with their padding, and sorted by phase
 * (number modulo the stride) so that those a tap reads are neighbours. Where the rows of small images would fill groups badly, a
 * chunk is flat: one row of all its output pixels, and every tap has a plane of each channel. */
typedef struct Plan {
  NitiConvPlan base;
  NitiConv conv;
  const NitiConvKernels *kernels;
  NitiConvCut how;
  size_t threads;
  bool flat;
  size_t rows, columns, groups;             /* of an output image of a full chunk; groups of one of its rows */
  size_t plane_columns, plane_image, plane; /* elements of a row and of an image in a plane; bytes of a plane */
  size_t taps, m;                           /* m: taps * C */
  size_t nr, panels, panel_bytes;           /* output channels of a panel; panels; bytes of each for a full chunk */
  size_t part_rows, part_panels, across;    /* of a part; parts side by side */
  size_t images, chunks;                    /* of a full chunk */
  Chunk chunk[2];
  size_t *row_offset; /* of row (tap, channel) in the planes */
  uint8_t *zeros;     /* a row of positions whose value is 0 */
} Plan;

typedef struct Pass {
  const Plan *plan;
  const Chunk *chunk;
  NitiGradient *gradient;
  const int8_t *dy, *x;
  size_t first;      /* source image of this chunk */
  size_t begin, end; /* pieces to sum now */
  bool looks;        /* sums are then final, and of 32 bits: their largest magnitude is wanted */
  NitiIsa isa;
  _Atomic uint32_t *max;
  uint8_t *planes, *panels;
  int32_t *corrections; /* [panels][nr] */
  int32_t *acc;         /* [threads][PART_PANELS][PART_ROWS][nr] */
} Pass;

typedef struct Piece {
  size_t image, images, row, rows, group, groups;
} Piece;

static int columns_of(const Plan *p, size_t panel) { return (int)niti_least(p->nr, (size_t)p->conv.k - panel * p->nr); }
static int vectors_of(const Plan *p, size_t panel) { return (columns_of(p, panel) + p->kernels->lanes - 1) / p->kernels->lanes; }
static size_t lanes_of(const Plan *p, size_t panel) { return (size_t)(vectors_of(p, panel) * p->kernels->lanes); }

/* ---- the plan ---- */

/* One axis of a plane: elements of phases 0 .. phase - 1; all of them at phase = phases. Taps of a phase read its elements 0, 1
 * .. onwards. */
static size_t phases(int32_t taps, int32_t stride) { return (size_t)(taps < stride ? taps : stride); }
static size_t phase_size(int32_t out, int32_t taps, int32_t stride, size_t phase) {
  return (size_t)out + niti_divide_up((size_t)taps - phase, (size_t)stride) - 1;
}
static size_t phase_first(int32_t out, int32_t taps, int32_t stride, size_t phase) {
  size_t first = 0;
  for (size_t p = 0; p < phase; ++p) first += phase_size(out, taps, stride, p);
  return first;
}

static void cut(Plan *p) {
  const NitiConv *s = &p->conv;
  const size_t element = (size_t)p->kernels->element, group = (size_t)p->kernels->group;
  const size_t area = (size_t)s->oh * (size_t)s->ow, c = (size_t)s->c;
  p->rows = (size_t)s->oh;
  p->columns = (size_t)s->ow;
  p->groups = niti_divide_up(p->columns, group);
  p->flat = area <= FLAT_AREA && 3 * p->groups * group >= 4 * p->columns; /* a quarter of the places or more would be padding */
  if (p->flat) p->rows = 1;
  p->plane_columns = phase_first(s->ow, s->kw, s->stride_w, phases(s->kw, s->stride_w));
  p->plane_image =
      niti_round_up(phase_first(s->oh, s->kh, s->stride_h, phases(s->kh, s->stride_h)) * p->plane_columns, PACK_POSITIONS);

  const size_t x_image = p->flat ? p->taps * area : p->plane_image, dy_image = p->flat ? area : p->rows * p->groups * group;
  const size_t image_bytes = (c * x_image + p->panels * p->nr * dy_image) * element;
  p->images = niti_most(1, niti_least(niti_conv_scaled(CHUNK_BYTES, p->how) / image_bytes, NITI_ACCUMULATION_MAX / area));
  p->images = niti_least(p->images, (size_t)s->n);
  p->chunks = niti_divide_up((size_t)s->n, p->images);
  if (p->flat) {
    p->columns = p->images * area;
    p->groups = niti_divide_up(p->columns, group);
    p->plane_columns = p->plane_image = niti_round_up(p->columns, PACK_POSITIONS);
  }
  const size_t packed_images = p->flat ? 1 : p->images;
  p->plane = niti_round_up(p->plane_image * packed_images * element, 64);
  p->plane += p->plane / 64 % 2 == 0 ? 64 : 0; /* an odd number of lines: planes do not compete for the same sets of a cache */
  p->panel_bytes = packed_images * p->rows * p->groups * group * element * p->nr;
}

/* Whole tiles, small enough that every thread has several parts. */
static void cut_parts(Plan *p) {
  const size_t mr = (size_t)p->kernels->mr[vectors_of(p, 0)];
  p->part_panels = niti_least(PART_PANELS, p->panels);
  p->across = niti_divide_up(p->panels, p->part_panels);
  p->part_rows = niti_round_up(niti_divide_up(p->m * p->across, p->threads * PARTS_PER_THREAD), mr);
  p->part_rows = niti_least(p->part_rows, PART_ROWS / mr * mr);
}

/* The shape of a chunk of this number of source images, and of the pieces in which it is summed: whole images, rows of one, or
 * groups of one row. */
static void cut_chunk(const Plan *p, Chunk *c, size_t count) {
  const size_t inner = INNER_POSITIONS / (size_t)p->kernels->group;
  c->count = count;
  c->images = p->flat ? 1 : count;
  c->columns = p->flat ? count * (size_t)p->conv.oh * (size_t)p->conv.ow : p->columns;
  c->groups = niti_divide_up(c->columns, (size_t)p->kernels->group);
  c->groups_step = niti_least(c->groups, inner);
  c->rows_step = niti_most(1, niti_least(p->rows, inner / c->groups));
  c->images_step = c->rows_step == p->rows ? niti_most(1, inner / (p->rows * c->groups)) : 1;
}

/* The last chunk of a flat plan has tables of its own. */
static void take_tables(Plan *p, NitiWorkspace *w) {
  for (size_t i = 0; i < 2; ++i) {
    const bool own = i == 0 || (p->flat && p->chunks > 1);
    p->chunk[i].x_offset =
        own ? niti_workspace_take(w, (p->flat ? p->taps : 1) * p->plane_image * sizeof(size_t)) : p->chunk[0].x_offset;
    p->chunk[i].dy_offset =
        own ? niti_workspace_take(w, p->rows * p->groups * (size_t)p->kernels->group * sizeof(size_t)) : p->chunk[0].dy_offset;
  }
  p->row_offset = niti_workspace_take(w, p->m * sizeof(size_t));
  p->zeros = niti_workspace_take(w, p->groups * (size_t)(p->kernels->group * p->kernels->element));
}

/* Where tap (ky, kx) of output pixel (row, column) reads x; SIZE_MAX: outside. */
static size_t source_of(const NitiConv *s, size_t image, int64_t iy, int64_t ix) {
  if (iy < 0 || iy >= s->h || ix < 0 || ix >= s->w) return SIZE_MAX;
  return ((image * (size_t)s->h + (size_t)iy) * (size_t)s->w + (size_t)ix) * (size_t)s->c;
}

static void fill_x_offsets(const Plan *p, const Chunk *c) {
  const NitiConv *s = &p->conv;
  size_t *x = c->x_offset;
  for (size_t phase_y = 0; phase_y < phases(s->kh, s->stride_h); ++phase_y) {
    for (size_t row = 0; row < phase_size(s->oh, s->kh, s->stride_h, phase_y); ++row) {
      const int64_t iy = (int64_t)(row * (size_t)s->stride_h + phase_y) - s->pad_h;
      for (size_t phase_x = 0; phase_x < phases(s->kw, s->stride_w); ++phase_x) {
        for (size_t column = 0; column < phase_size(s->ow, s->kw, s->stride_w, phase_x); ++column) {
          *x++ = source_of(s, 0, iy, (int64_t)(column * (size_t)s->stride_w + phase_x) - s->pad_w);
        }
      }
    }
  }
  while (x < c->x_offset + p->plane_image) *x++ = SIZE_MAX;
}

static void fill_flat_x_offsets(const Plan *p, const Chunk *c) {
  const NitiConv *s = &p->conv;
  size_t *x = c->x_offset;
  for (int32_t tap = 0; tap < s->kh * s->kw; ++tap) {
    const int64_t top = tap / s->kw - s->pad_h, left = tap % s->kw - s->pad_w;
    for (size_t image = 0; image < c->count; ++image) {
      for (int64_t row = 0; row < s->oh; ++row) {
        for (int64_t column = 0; column < s->ow; ++column) {
          *x++ = source_of(s, image, row * s->stride_h + top, column * s->stride_w + left);
        }
      }
    }
    for (size_t i = c->columns; i % PACK_POSITIONS != 0; ++i) *x++ = SIZE_MAX;
  }
}

static void fill_tables(const Plan *p, const Chunk *c) {
  const size_t padded = c->groups * (size_t)p->kernels->group;
  for (size_t row = 0; row < p->rows; ++row) {
    for (size_t i = 0; i < padded; ++i) {
      c->dy_offset[row * padded + i] = i < c->columns ? (row * c->columns + i) * (size_t)p->conv.k : SIZE_MAX;
    }
  }
  if (p->flat)
    fill_flat_x_offsets(p, c);
  else
    fill_x_offsets(p, c);
}

static void fill_row_offsets(const Plan *p) {
  const NitiConv *s = &p->conv;
  const size_t element = (size_t)p->kernels->element;
  for (size_t m = 0; m < p->m; ++m) {
    const size_t tap = m / (size_t)s->c, channel = m % (size_t)s->c, ky = tap / (size_t)s->kw, kx = tap % (size_t)s->kw;
    const size_t row = phase_first(s->oh, s->kh, s->stride_h, ky % (size_t)s->stride_h) + ky / (size_t)s->stride_h;
    const size_t column = phase_first(s->ow, s->kw, s->stride_w, kx % (size_t)s->stride_w) + kx / (size_t)s->stride_w;
    p->row_offset[m] = p->flat ? m * p->plane : channel * p->plane + (row * p->plane_columns + column) * element;
  }
}

/* A run's memory. */
static void take_buffers(Pass *pass, NitiWorkspace *w) {
  const Plan *p = pass->plan;
  pass->planes = niti_workspace_take(w, (p->flat ? p->m : (size_t)p->conv.c) * p->plane + 64); /* the last group reads past */
  pass->panels = niti_workspace_take(w, p->panels * p->panel_bytes);
  pass->corrections = niti_workspace_take(w, p->panels * p->nr * sizeof(int32_t));
  pass->acc = niti_workspace_take(w, p->threads * PART_PANELS * PART_ROWS * p->nr * sizeof(int32_t));
}

static void run_gradient(const NitiConvPlan *, NitiCpu *, NitiGradient *, const int8_t *dy, const int8_t *x);

NitiConvPlan *niti_conv_gradient_prepare(NitiWorkspace *w, const NitiConvKernels *kernels, const NitiConv *s, NitiConvCut how) {
  Plan p = {.base = {.kernel = kernels->name, .gradient = run_gradient}, .conv = *s, .kernels = kernels, .how = how};
  p.threads = how.threads;
  p.taps = (size_t)s->kh * (size_t)s->kw;
  p.m = p.taps * (size_t)s->c;
  p.nr = (size_t)(kernels->vectors * kernels->lanes);
  p.panels = niti_divide_up((size_t)s->k, p.nr);
  cut(&p);
  cut_parts(&p);
  cut_chunk(&p, &p.chunk[0], p.images);
  cut_chunk(&p, &p.chunk[1], (size_t)s->n - (p.chunks - 1) * p.images);

  NitiWorkspace run = niti_workspace_begin(NULL, 0);
  take_buffers(&(Pass){.plan = &p}, &run);
  p.base.workspace = run.used;
  Plan *plan = niti_workspace_take(w, sizeof *plan);
  take_tables(&p, w);
  if (!plan) return NULL;
  fill_row_offsets(&p);
  kernels->zero(p.zeros, p.groups * (size_t)kernels->group);
  for (size_t i = 0; i < (p.flat && p.chunks > 1 ? 2 : 1); ++i) fill_tables(&p, &p.chunk[i]);
  *plan = p;
  return &plan->base;
}

/* ---- packing ---- */

/* Where a panel holds this group of this row of this image. */
static uint8_t *panel_at(const Pass *p, size_t panel, size_t image, size_t row, size_t group) {
  const Plan *plan = p->plan;
  const size_t group_bytes = (size_t)(plan->kernels->group * plan->kernels->element) * lanes_of(plan, panel);
  return p->panels + panel * plan->panel_bytes + ((image * plan->rows + row) * p->chunk->groups + group) * group_bytes;
}

static size_t x_items(const Pass *p) {
  return (p->plan->flat ? p->plan->taps : p->chunk->images) * niti_divide_up((size_t)p->plan->conv.c, PACK_CHANNELS);
}

/* Items: first x by image (or tap of a flat chunk) and channels, then dy by image and panel. */
static void pack_chunk(void *context, size_t thread, size_t item) {
  const Pass *p = context;
  const Plan *plan = p->plan;
  const NitiConv *s = &plan->conv;
  const size_t c = (size_t)s->c;
  (void)thread;
  if (item < x_items(p)) {
    const size_t parts = niti_divide_up(c, PACK_CHANNELS), channel = item % parts * PACK_CHANNELS;
    const size_t tap = plan->flat ? item / parts : 0, image = plan->flat ? 0 : item / parts;
    const size_t positions = plan->flat ? niti_round_up(p->chunk->columns, PACK_POSITIONS) : plan->plane_image;
    const int8_t *x = p->x + (p->first + image) * (size_t)s->h * (size_t)s->w * c + channel;
    uint8_t *plane = p->planes + (tap * c + channel) * plan->plane + image * plan->plane_image * (size_t)plan->kernels->element;
    plan->kernels->transpose(plane, plan->plane, x, p->chunk->x_offset + tap * positions, positions,
                             (int)niti_least(PACK_CHANNELS, c - channel));
  } else {
    const size_t panel = (item - x_items(p)) % plan->panels, image = (item - x_items(p)) / plan->panels;
    const int8_t *dy = p->dy + (p->first + image) * (size_t)s->oh * (size_t)s->ow * (size_t)s->k + panel * plan->nr;
    plan->kernels->panel_across(panel_at(p, panel, image, 0, 0), dy, p->chunk->dy_offset,
                                plan->rows * p->chunk->groups * (size_t)plan->kernels->group, columns_of(plan, panel),
                                (int)lanes_of(plan, panel));
  }
}

/* ---- sums ---- */

static size_t count_pieces(const Pass *p) {
  const Chunk *c = p->chunk;
  return niti_divide_up(c->images, c->images_step) * niti_divide_up(p->plan->rows, c->rows_step) *
         niti_divide_up(c->groups, c->groups_step);
}

static Piece piece_at(const Pass *p, size_t index) {
  const Chunk *c = p->chunk;
  const size_t across = niti_divide_up(c->groups, c->groups_step), down = niti_divide_up(p->plan->rows, c->rows_step);
  Piece piece = {.group = index % across * c->groups_step,
                 .row = index / across % down * c->rows_step,
                 .image = index / across / down * c->images_step};
  piece.groups = niti_least(c->groups_step, c->groups - piece.group);
  piece.rows = niti_least(c->rows_step, p->plan->rows - piece.row);
  piece.images = niti_least(c->images_step, c->images - piece.image);
  return piece;
}

/* A piece as operands of a panel; in is the piece's first element in the planes. */
static NitiMicrotile tile_of(const Pass *p, const Piece *piece, size_t panel) {
  return (NitiMicrotile){.panel = panel_at(p, panel, piece->image, piece->row, piece->group),
                         .sets = piece->images,
                         .runs = piece->rows,
                         .groups = piece->groups,
                         .vectors = vectors_of(p->plan, panel)};
}

/* The negated contribution of the operands' representation of zero to every sum. */
static void correct_panel(void *context, size_t thread, size_t panel) {
  const Pass *p = context;
  const Plan *plan = p->plan;
  const size_t none = 0;
  int32_t *sums = p->acc + thread * PART_PANELS * PART_ROWS * plan->nr, *correction = p->corrections + panel * plan->nr;
  memset(sums, 0, lanes_of(plan, panel) * sizeof *sums);
  if (plan->kernels->begin) plan->kernels->begin();
  for (size_t i = p->begin; i < p->end; ++i) {
    const Piece piece = piece_at(p, i);
    NitiMicrotile tile = tile_of(p, &piece, panel);
    tile.acc = sums;
    tile.init = sums;
    tile.in = plan->zeros;
    tile.row_offset = &none;
    tile.rows = 1;
    plan->kernels->microkernel(&tile);
  }
  if (plan->kernels->end) plan->kernels->end();
  for (size_t column = 0; column < lanes_of(plan, panel); ++column) correction[column] = (int32_t)(0u - (uint32_t)sums[column]);
}

/* A part of the gradient: some rows (tap, channel) x some panels of output channels. */
static void sum_part(void *context, size_t thread, size_t item) {
  static const int32_t zeros[NITI_NR_MAX];
  const Pass *p = context;
  const Plan *plan = p->plan;
  const NitiConvKernels *kernels = plan->kernels;
  const size_t element = (size_t)kernels->element, panel_sums = PART_ROWS * plan->nr;
  const size_t b0 = item % plan->across * plan->part_panels, b1 = niti_least(b0 + plan->part_panels, plan->panels);
  const size_t m0 = item / plan->across * plan->part_rows, m1 = niti_least(m0 + plan->part_rows, plan->m);
  int32_t *acc = p->acc + thread * PART_PANELS * panel_sums;
  if (kernels->begin) kernels->begin();
  for (size_t i = p->begin; i < p->end; ++i) {
    const Piece piece = piece_at(p, i);
    const size_t in = piece.image * plan->plane_image + piece.row * plan->plane_columns + piece.group * (size_t)kernels->group;
    for (size_t panel = b0; panel < b1; ++panel) {
      const size_t stride = lanes_of(plan, panel), mr = (size_t)kernels->mr[vectors_of(plan, panel)];
      NitiMicrotile tile = tile_of(p, &piece, panel);
      tile.in = p->planes + in * element;
      tile.set_stride = plan->plane_image * element;
      tile.run_stride = plan->plane_columns * element;
      for (size_t m = m0; m < m1; m += mr) {
        tile.acc = acc + (panel - b0) * panel_sums + (m - m0) * stride;
        tile.init = i > p->begin ? tile.acc : kernels->offset ? p->corrections + panel * plan->nr : zeros;
        tile.init_stride = i > p->begin ? stride : 0;
        tile.row_offset = plan->row_offset + m;
        tile.rows = (int)niti_least(mr, m1 - m);
        kernels->microkernel(&tile);
      }
    }
  }
  if (kernels->end) kernels->end();
  for (size_t panel = b0; panel < b1; ++panel) {
    const NitiGradient *g = p->gradient;
    const size_t at = panel * plan->nr * plan->m + m0;
    uint8_t *gradient = (uint8_t *)g->data + at * (size_t)g->bits / 8;
    kernels->store(gradient, g->bits, p->first > 0 || p->begin > 0, plan->m, acc + (panel - b0) * panel_sums,
                   lanes_of(plan, panel), (int)(m1 - m0), columns_of(plan, panel));
    if (p->looks)
      niti_conv_look(p->max, p->isa, (const int32_t *)g->data + at, (size_t)columns_of(plan, panel), m1 - m0, plan->m);
  }
}

/* ---- the operation ---- */

static void run_gradient(const NitiConvPlan *base, NitiCpu *cpu, NitiGradient *gradient, const int8_t *dy, const int8_t *x) {
  const Plan *plan = (const Plan *)base;
  NitiWorkspace memory = niti_conv_memory(cpu);
  _Atomic uint32_t max = 0;
  Pass p = {.plan = plan, .gradient = gradient, .dy = dy, .x = x, .isa = cpu->isa, .max = &max};
  take_buffers(&p, &memory);
  for (size_t chunk = 0; chunk < plan->chunks; ++chunk, p.first += plan->images) {
    p.chunk = &plan->chunk[chunk + 1 == plan->chunks];
    const size_t outputs = p.chunk->count * (size_t)plan->conv.oh * (size_t)plan->conv.ow;
    niti_conv_share(cpu, pack_chunk, &p, x_items(&p) + p.chunk->images * plan->panels,
                    outputs * (plan->m + (size_t)plan->conv.k));
    /* All pieces at once, unless a single image exceeds the accumulation length of int32. */
    const size_t pieces = count_pieces(&p), at_once = NITI_ACCUMULATION_MAX / INNER_POSITIONS;
    for (p.begin = 0; p.begin < pieces; p.begin = p.end) {
      p.end = p.chunk->images > 1 || plan->flat ? pieces : niti_least(p.begin + at_once, pieces);
      p.looks = gradient->bits == 32 && chunk + 1 == plan->chunks && p.end == pieces;
      if (plan->kernels->offset) niti_conv_share(cpu, correct_panel, &p, plan->panels, outputs * (size_t)plan->conv.k);
      niti_conv_share(cpu, sum_part, &p, niti_divide_up(plan->m, plan->part_rows) * plan->across,
                      outputs * plan->m * (size_t)plan->conv.k);
    }
  }
  if (p.looks) niti_cpu_keep_largest(cpu, gradient, max);
  assert(niti_workspace_intact(&memory));
}
