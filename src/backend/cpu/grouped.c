/* The driver of grouped convolutions: which lanes, pixels and rows a part has, the padded input of each, and the weights in the
 * order of the terms. */
#include "backend/cpu/grouped.h"

#include "base/bounds.h"

enum {
  CHUNK = 4096,          /* operands of one pixel in a part: lanes * depth */
  ACCUMULATORS = 8192,   /* of one row of a part */
  SCRATCH = 64 * 1024,   /* bytes of a part's input, or one row's */
  POSITIONS = 32 * 1024, /* of a part at most: the proof that its sums fit int32 counts them */
  PARTS_PER_THREAD = 4,
};
#define NOWHERE SIZE_MAX

/* One side of the image, from the output's view. Backward, the output is dx and the input dy. */
typedef struct Side {
  int32_t outputs, inputs, kernel, stride, pad;
  bool backward;
} Side;

/* What an output sums: taps of the kernel `last`, last - step, ... with inputs first, first + 1, ... */
typedef struct Reach {
  int32_t first, taps, last, step;
} Reach;

static Reach reach(const Side *s, int32_t at) {
  if (!s->backward) return (Reach){at * s->stride - s->pad, s->kernel, 0, -1};
  const NitiStridePhase p = niti_stride_phase(at % s->stride, s->outputs, s->kernel, s->stride, s->pad);
  return (Reach){at / s->stride + p.offset, p.taps, p.last, s->stride};
}

/* Outputs of one phase have the same taps; they are `phases` apart. */
static int32_t phases(const Side *s) { return s->backward ? s->stride : 1; }

/* Inputs low .. high - 1 under outputs from .. to - 1. */
typedef struct Span {
  int32_t low, high;
} Span;

static Span span(const Side *s, int32_t from, int32_t to) {
  Span all = {0, 0};
  bool any = false;
  for (int32_t at = from; at < to; ++at) {
    const Reach r = reach(s, at);
    if (r.taps == 0) continue;
    if (!any || r.first < all.low) all.low = r.first;
    if (!any || r.first + r.taps > all.high) all.high = r.first + r.taps;
    any = true;
  }
  return all;
}

/* The most inputs under `count` outputs that begin at a multiple of count. */
static size_t widest(const Side *s, int32_t count) {
  int32_t most = 0;
  for (int32_t from = 0; from < s->outputs; from += count) {
    const Span all = span(s, from, from + count < s->outputs ? from + count : s->outputs);
    most = all.high - all.low > most ? all.high - all.low : most;
  }
  return (size_t)most;
}

typedef struct Plan {
  NitiConvPlan base;
  const NitiGroupedKernels *kernels;
  NitiConv conv;
  NitiDirection direction;
  Side y, x;
  NitiConvCut how;
  size_t threads, lanes, width;       /* width: lanes rounded up to whole vectors */
  size_t channels, depth, each;       /* of the input; operands of a tap, for each lane; lanes that share them */
  size_t chunk, chunks;               /* lanes of a part */
  int32_t rows, columns;              /* outputs of a part */
  size_t bands, strips, parts;        /* parts per column and row of an image; in all: (image, band, strip, chunk) */
  size_t pixel, pitch, scratch_bytes; /* bytes of an input pixel, an input row, a thread's scratch */
  size_t terms;                       /* of all phases, each with an even number of them */
  size_t slots;                       /* gradient: separate sums */
  size_t *first;                      /* [phases + 1] the first term of each; the phases of x innermost */
  size_t *offset, *weight;            /* [terms] in a part's input; tap * depth + which of its operands, NOWHERE: 0 */
} Plan;

/* ---- preparing ---- */

static void choose_parts(Plan *p) {
  const int32_t step = phases(&p->x);
  const size_t most = niti_most(CHUNK / p->depth / NITI_GROUPED_LANES * NITI_GROUPED_LANES, NITI_GROUPED_LANES);
  p->chunk = niti_least(p->lanes, most);
  p->chunks = niti_divide_up(p->lanes, p->chunk);
  p->pixel = p->chunk * p->depth;
  const size_t strips = niti_divide_up((size_t)p->x.outputs, niti_most(ACCUMULATORS / p->chunk, 1));
  p->columns = (int32_t)niti_round_up(niti_divide_up((size_t)p->x.outputs, strips), (size_t)step);
  p->pitch = widest(&p->x, p->columns) * p->pixel;
  const size_t all = (size_t)p->conv.n * (size_t)p->y.outputs, fair = all / (p->threads * PARTS_PER_THREAD);
  p->rows = 1;
  while (p->rows < p->y.outputs && (size_t)p->rows < fair && 2 * (size_t)p->rows * (size_t)p->columns <= POSITIONS &&
         widest(&p->y, 2 * p->rows) * p->pitch <= niti_conv_scaled(SCRATCH, p->how))
    p->rows *= 2;
  p->bands = niti_divide_up((size_t)p->y.outputs, (size_t)p->rows);
  p->strips = niti_divide_up((size_t)p->x.outputs, (size_t)p->columns);
  p->parts = (size_t)p->conv.n * p->bands * p->strips * p->chunks;
}

static size_t phase_terms(const Plan *p, Reach y, Reach x) { return (size_t)y.taps * (size_t)x.taps * p->depth; }

/* Terms of all phases; the gradient takes them one by one, the others in pairs. */
static size_t count_terms(const Plan *p) {
  size_t terms = 0;
  for (int32_t y = 0; y < phases(&p->y); ++y) {
    for (int32_t x = 0; x < phases(&p->x); ++x)
      terms += niti_round_up(phase_terms(p, reach(&p->y, y), reach(&p->x, x)), p->direction == NITI_GRADIENT ? 1 : 2);
  }
  return terms;
}

static size_t fill_phase(const Plan *p, size_t term, Reach y, Reach x) {
  for (int32_t a = 0; a < y.taps; ++a) {
    for (int32_t b = 0; b < x.taps; ++b) {
      const size_t tap = (size_t)(y.last - a * y.step) * (size_t)p->conv.kw + (size_t)(x.last - b * x.step);
      for (size_t d = 0; d < p->depth; ++d, ++term) {
        p->offset[term] = (size_t)a * p->pitch + (size_t)b * p->pixel + d * p->chunk;
        p->weight[term] = tap * p->depth + d;
      }
    }
  }
  if (p->direction == NITI_GRADIENT || phase_terms(p, y, x) % 2 == 0) return term;
  p->offset[term] = 0;
  p->weight[term] = NOWHERE;
  return term + 1;
}

static void fill_tables(Plan *p) {
  size_t term = 0, phase = 0;
  for (int32_t y = 0; y < phases(&p->y); ++y) {
    for (int32_t x = 0; x < phases(&p->x); ++x) {
      p->first[phase++] = term;
      term = fill_phase(p, term, reach(&p->y, y), reach(&p->x, x));
    }
  }
  p->first[phase] = term;
  assert(term == p->terms);
}

typedef struct Buffers {
  int16_t *weights; /* [terms][width] */
  uint8_t *shifts;  /* [parts]: what each used last */
  int32_t *sums;    /* gradient: [slots][terms][width] */
  uint8_t *scratch; /* [threads][scratch_bytes] */
} Buffers;

static Buffers take_buffers(const Plan *p, NitiWorkspace *w) {
  const bool pass = p->direction != NITI_GRADIENT;
  Buffers b;
  b.weights = niti_workspace_take(w, pass ? p->terms * p->width * sizeof(int16_t) : 0);
  b.shifts = niti_workspace_take(w, pass ? p->parts : 0);
  b.sums = niti_workspace_take(w, p->slots * p->terms * p->width * sizeof(int32_t));
  b.scratch = niti_workspace_take(w, p->threads * p->scratch_bytes);
  return b;
}

typedef struct Scratch {
  int8_t *in;
  int32_t *acc;
} Scratch;

static Scratch take_scratch(const Plan *p, NitiWorkspace *w) {
  Scratch s;
  s.in = niti_workspace_take(w, widest(&p->y, p->rows) * p->pitch + NITI_GROUPED_LANES);
  s.acc = niti_workspace_take(w, (size_t)p->columns * p->chunk * sizeof(int32_t) + NITI_GROUPED_LANES);
  return s;
}

static uint32_t run_pass(const NitiConvPlan *, NitiCpu *, const NitiConvOperands *, const NitiRounder *);
static void run_gradient(const NitiConvPlan *, NitiCpu *, NitiGradient *, const int8_t *dy, const int8_t *x);

NitiConvPlan *niti_grouped_prepare(NitiWorkspace *w, const NitiGroupedKernels *kernels, const NitiConv *s,
                                   NitiDirection direction, NitiConvCut how) {
  const bool backward = direction == NITI_BACKWARD;
  const size_t inputs = (size_t)niti_conv_group_inputs(s), outputs = (size_t)niti_conv_group_outputs(s);
  Plan p = {.base = {.kernel = kernels->name, .pass = run_pass, .gradient = run_gradient},
            .kernels = kernels,
            .conv = *s,
            .direction = direction,
            .y = {backward ? s->h : s->oh, backward ? s->oh : s->h, s->kh, s->stride_h, s->pad_h, backward},
            .x = {backward ? s->w : s->ow, backward ? s->ow : s->w, s->kw, s->stride_w, s->pad_w, backward},
            .how = how,
            .threads = how.threads,
            .lanes = (size_t)(backward ? s->c : s->k),
            .channels = (size_t)(backward ? s->k : s->c),
            .depth = backward ? outputs : inputs,
            .each = backward ? inputs : outputs};
  p.width = niti_round_up(p.lanes, NITI_GROUPED_LANES);
  p.terms = count_terms(&p);
  choose_parts(&p);
  if (direction == NITI_GRADIENT) {
    const size_t places = p.parts / p.chunks, most = NITI_ACCUMULATION_MAX / ((size_t)p.rows * (size_t)p.columns);
    p.slots = niti_most(niti_least(how.threads, places), niti_divide_up(places, most));
  }
  NitiWorkspace scratch = niti_workspace_begin(NULL, 0), run = scratch;
  take_scratch(&p, &scratch);
  p.scratch_bytes = scratch.used;
  take_buffers(&p, &run);
  p.base.workspace = run.used;
  Plan *plan = niti_workspace_take(w, sizeof *plan);
  p.first = niti_workspace_take(w, ((size_t)phases(&p.y) * (size_t)phases(&p.x) + 1) * sizeof(size_t));
  p.offset = niti_workspace_take(w, p.terms * sizeof(size_t));
  p.weight = niti_workspace_take(w, p.terms * sizeof(size_t));
  if (!plan) return NULL;
  fill_tables(&p);
  *plan = p;
  return &plan->base;
}

/* ---- the input of a part ---- */

typedef struct Part {
  size_t n, lane, lanes;
  int32_t y0, y1, x0, x1; /* outputs */
  Span rows, columns;     /* inputs */
} Part;

static Part part_of(const Plan *p, size_t item) {
  const size_t chunk = item % p->chunks, strip = item / p->chunks % p->strips, band = item / p->chunks / p->strips % p->bands;
  Part part = {.n = item / p->chunks / p->strips / p->bands,
               .lane = chunk * p->chunk,
               .y0 = (int32_t)band * p->rows,
               .x0 = (int32_t)strip * p->columns};
  part.lanes = niti_least(p->chunk, p->lanes - part.lane);
  part.y1 = p->y.outputs - part.y0 < p->rows ? p->y.outputs : part.y0 + p->rows;
  part.x1 = p->x.outputs - part.x0 < p->columns ? p->x.outputs : part.x0 + p->columns;
  part.rows = span(&p->y, part.y0, part.y1);
  part.columns = span(&p->x, part.x0, part.x1);
  return part;
}

/* The operands of one pixel: out[d * chunk + l] = operand d of lane `lane` + l. Writes a few bytes beyond, which the next operand
 * or pixel overwrites: stores of a constant size are faster. */
static void expand(const Plan *p, int8_t *out, const int8_t *pixel, size_t lane, size_t lanes) {
  if (p->depth == 1 && p->each == 1) {
    memcpy(out, pixel + lane, lanes);
    return;
  }
  for (size_t d = 0; d < p->depth; ++d, out += p->chunk) {
    const int8_t *operand = pixel + lane / p->each * p->depth + d;
    for (size_t l = 0, next = p->each - lane % p->each; l < lanes; l = next, next += p->each, operand += p->depth) {
      const size_t run = niti_least(next, lanes) - l;
      memset(out + l, *operand, run <= NITI_GROUPED_LANES ? NITI_GROUPED_LANES : run);
    }
  }
}

static void fill_row(const Plan *p, int8_t *to, const int8_t *row, const Part *part) {
  const Span *c = &part->columns;
  const int32_t low = c->low > 0 ? c->low : 0, high = c->high < p->x.inputs ? c->high : p->x.inputs;
  if (low >= high) {
    memset(to, 0, (size_t)(c->high - c->low) * p->pixel);
    return;
  }
  memset(to, 0, (size_t)(low - c->low) * p->pixel);
  to += (size_t)(low - c->low) * p->pixel;
  if (p->depth == 1 && p->each == 1 && p->chunks == 1) {
    memcpy(to, row + (size_t)low * p->channels, (size_t)(high - low) * p->channels);
    to += (size_t)(high - low) * p->channels;
  } else {
    for (int32_t x = low; x < high; ++x, to += p->pixel) expand(p, to, row + (size_t)x * p->channels, part->lane, part->lanes);
  }
  memset(to, 0, (size_t)(c->high - high) * p->pixel);
}

static void fill_input(const Plan *p, int8_t *to, const int8_t *in, const Part *part) {
  const size_t row = (size_t)p->x.inputs * p->channels;
  for (int32_t y = part->rows.low; y < part->rows.high; ++y, to += p->pitch) {
    if (y < 0 || y >= p->y.inputs)
      memset(to, 0, (size_t)(part->columns.high - part->columns.low) * p->pixel);
    else
      fill_row(p, to, in + (part->n * (size_t)p->y.inputs + (size_t)y) * row, part);
  }
}

/* The pixels of output row y from column x on that are a phase apart. */
static NitiGroupedRow row_of(const Plan *p, const int8_t *in, const Part *part, int32_t y, int32_t x) {
  const Reach ry = reach(&p->y, y), rx = reach(&p->x, x);
  const int32_t across = phases(&p->x);
  const size_t phase = (size_t)(y % phases(&p->y) * across + x % across), first = p->first[phase];
  NitiGroupedRow r = {.in = in,
                      .step = (size_t)(p->x.backward ? 1 : p->x.stride) * p->pixel,
                      .offset = p->offset + first,
                      .terms = p->first[phase + 1] - first,
                      .pixels = niti_divide_up((size_t)(part->x1 - x), (size_t)across),
                      .lanes = part->lanes};
  if (r.terms > 0) r.in += (size_t)(ry.first - part->rows.low) * p->pitch + (size_t)(rx.first - part->columns.low) * p->pixel;
  return r;
}

/* ---- forward and backward ---- */

typedef struct Pass {
  const Plan *plan;
  NitiRequantiseKernel requantise;
  const NitiRounder *rounder;
  int8_t *out;
  const int8_t *in, *w;
  const int32_t *bias;
  Buffers buffers;
  _Atomic uint32_t max;
} Pass;

/* The weights of a term, beside those of the other of its pair. */
static void pack_term(void *context, size_t thread, size_t term) {
  const Pass *p = context;
  const Plan *plan = p->plan;
  const size_t taps = (size_t)plan->conv.kh * (size_t)plan->conv.kw, which = plan->weight[term];
  const size_t tap = which / plan->depth, operand = which % plan->depth, lanes = which == NOWHERE ? 0 : plan->lanes;
  int16_t *to = p->buffers.weights + term / 2 * 2 * plan->width + term % 2;
  (void)thread;
  for (size_t l = 0; l < lanes; ++l) {
    const size_t k = l / plan->each * plan->depth + operand; /* backward */
    to[2 * l] = plan->y.backward ? p->w[(k * taps + tap) * plan->each + l % plan->each] : p->w[l * taps * plan->depth + which];
  }
  for (size_t l = lanes; l < plan->width; ++l) to[2 * l] = 0;
}

static uint32_t round_run(const Pass *p, size_t at, const int32_t *acc, size_t count, const NitiRounder *rounder, uint32_t max) {
  max = p->requantise(p->out + at, acc, count, rounder, at, max);
  if (rounder->mask) niti_mask_apply(p->out + at, rounder->mask + at, count, niti_rounder_last(rounder));
  return max;
}

static void add_bias(int32_t *restrict acc, const int32_t *restrict bias, size_t lanes) {
  for (size_t l = 0; l < lanes; ++l) acc[l] += bias[l];
}

static uint32_t sum_row(const Pass *p, const Scratch *scratch, const Part *part, int32_t y, const NitiRounder *rounder,
                        uint32_t max) {
  const Plan *plan = p->plan;
  const int32_t across = phases(&plan->x);
  const size_t pixels = (size_t)(part->x1 - part->x0), lanes = part->lanes;
  for (int32_t x = part->x0; x < part->x1 && x < part->x0 + across; ++x) {
    const NitiGroupedRow r = row_of(plan, scratch->in, part, y, x);
    const size_t first = (size_t)(y % phases(&plan->y) * across + x % across);
    plan->kernels->sums(scratch->acc + (size_t)(x - part->x0) * lanes, (size_t)across * lanes,
                        p->buffers.weights + plan->first[first] * plan->width + 2 * part->lane, plan->width, &r);
  }
  for (size_t i = 0; p->bias && i < pixels; ++i) add_bias(scratch->acc + i * lanes, p->bias + part->lane, lanes);
  const size_t at = ((part->n * (size_t)plan->y.outputs + (size_t)y) * (size_t)plan->x.outputs + (size_t)part->x0) * plan->lanes;
  if (plan->chunks == 1) return round_run(p, at, scratch->acc, pixels * lanes, rounder, max);
  for (size_t i = 0; i < pixels; ++i)
    max = round_run(p, at + i * plan->lanes + part->lane, scratch->acc + i * lanes, lanes, rounder, max);
  return max;
}

static NitiWorkspace scratch_of(const Plan *p, const Buffers *b, size_t thread) {
  return niti_workspace_begin(b->scratch + thread * p->scratch_bytes, p->scratch_bytes);
}

static void sum_part(void *context, size_t thread, size_t item) {
  Pass *p = context;
  const Plan *plan = p->plan;
  uint8_t *shift = p->buffers.shifts + item;
  NitiRounder rounder = *p->rounder;
  rounder.shift = niti_part_shift(p->rounder, &p->max);
  if (p->rounder->again && *shift == rounder.shift) return;
  *shift = (uint8_t)rounder.shift;
  const Part part = part_of(plan, item);
  NitiWorkspace memory = scratch_of(plan, &p->buffers, thread);
  const Scratch scratch = take_scratch(plan, &memory);
  uint32_t max = 0;
  fill_input(plan, scratch.in, p->in, &part);
  for (int32_t y = part.y0; y < part.y1; ++y) max = sum_row(p, &scratch, &part, y, &rounder, max);
  assert(niti_workspace_intact(&memory));
  niti_max_raise(&p->max, max);
}

static size_t work_of(const Plan *p) {
  return (size_t)p->conv.n * (size_t)p->conv.oh * (size_t)p->conv.ow * (size_t)p->conv.k * (size_t)p->conv.kh *
         (size_t)p->conv.kw * (size_t)niti_conv_group_inputs(&p->conv);
}

static uint32_t run_pass(const NitiConvPlan *base, NitiCpu *cpu, const NitiConvOperands *o, const NitiRounder *rounder) {
  const Plan *plan = (const Plan *)base;
  NitiWorkspace memory = niti_conv_memory(cpu);
  Pass p = {
      .plan = plan, .requantise = cpu->requantise, .rounder = rounder, .out = o->out, .in = o->in, .w = o->w, .bias = o->bias};
  p.buffers = take_buffers(plan, &memory);
  if (!rounder->again) niti_conv_share(cpu, pack_term, &p, plan->terms, plan->terms * plan->lanes);
  niti_conv_share(cpu, sum_part, &p, plan->parts, work_of(plan));
  assert(niti_workspace_intact(&memory));
  return p.max;
}

/* ---- weight gradient ---- */

typedef struct GradientPass {
  const Plan *plan;
  NitiGradient *gradient;
  const int8_t *dy, *x;
  Buffers buffers;
} GradientPass;

/* Adds the products of one row of a part. The last deltas of the tensor are copied, so that nothing beyond them is read. */
static void add_row(const GradientPass *p, int32_t *sums, const Scratch *scratch, const Part *part, int32_t y) {
  const Plan *plan = p->plan;
  const NitiGroupedRow r = row_of(plan, scratch->in, part, y, part->x0);
  const size_t image = (size_t)plan->y.outputs * (size_t)plan->x.outputs, lanes = plan->lanes;
  const size_t pixel = part->n * image + (size_t)y * (size_t)plan->x.outputs + (size_t)part->x0;
  const int8_t *dy = p->dy + pixel * lanes + part->lane;
  int8_t *copy = (int8_t *)scratch->acc;
  if ((pixel + r.pixels) * lanes + NITI_GROUPED_LANES > (size_t)plan->conv.n * image * lanes) {
    for (size_t i = 0; i < r.pixels; ++i) memcpy(copy + i * r.lanes, dy + i * lanes, r.lanes);
    plan->kernels->products(sums + part->lane, plan->width, copy, r.lanes, &r);
  } else {
    plan->kernels->products(sums + part->lane, plan->width, dy, lanes, &r);
  }
}

/* The parts of one slot: at most NITI_ACCUMULATION_MAX positions. */
static void sum_slot(void *context, size_t thread, size_t slot) {
  const GradientPass *p = context;
  const Plan *plan = p->plan;
  const size_t places = plan->parts / plan->chunks, size = plan->terms * plan->width;
  int32_t *sums = p->buffers.sums + slot * size;
  NitiWorkspace memory = scratch_of(plan, &p->buffers, thread);
  const Scratch scratch = take_scratch(plan, &memory);
  memset(sums, 0, size * sizeof *sums);
  for (size_t item = places * slot / plan->slots * plan->chunks; item < places * (slot + 1) / plan->slots * plan->chunks;
       ++item) {
    const Part part = part_of(plan, item);
    fill_input(plan, scratch.in, p->x, &part);
    for (int32_t y = part.y0; y < part.y1; ++y) add_row(p, sums, &scratch, &part, y);
  }
  assert(niti_workspace_intact(&memory));
}

/* The gradients of one output channel. */
static void add_slots(void *context, size_t thread, size_t lane) {
  const GradientPass *p = context;
  const Plan *plan = p->plan;
  const size_t size = plan->terms * plan->width, at = lane * plan->terms;
  (void)thread;
  for (size_t t = 0; t < plan->terms; ++t) {
    const int32_t *sum = p->buffers.sums + t * plan->width + lane;
    int64_t total = 0;
    for (size_t slot = 0; slot < plan->slots; ++slot) total += sum[slot * size];
    if (p->gradient->bits == 32)
      ((int32_t *)p->gradient->data)[at + t] = (int32_t)total;
    else
      ((int64_t *)p->gradient->data)[at + t] = total;
  }
}

static void run_gradient(const NitiConvPlan *base, NitiCpu *cpu, NitiGradient *gradient, const int8_t *dy, const int8_t *x) {
  const Plan *plan = (const Plan *)base;
  NitiWorkspace memory = niti_conv_memory(cpu);
  GradientPass p = {.plan = plan, .gradient = gradient, .dy = dy, .x = x, .buffers = take_buffers(plan, &memory)};
  niti_conv_share(cpu, sum_slot, &p, plan->slots, work_of(plan));
  niti_conv_share(cpu, add_slots, &p, plan->lanes, plan->slots * plan->terms * plan->lanes);
  assert(niti_workspace_intact(&memory));
}
