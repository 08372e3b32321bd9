/* The driver of products of few rows, in all three directions. */
#include "backend/cpu/thin.h"

enum {
  OUTPUTS = 16, /* of an item forward: as many rows of weights */
  COLUMNS = 64, /* a multiple of which an item backward has */
  GRADIENT_ROWS = 16,
  MOST_ROWS = 16,
  MANY_WEIGHTS = 1 << 20,
};

typedef struct Plan {
  NitiConvPlan base;
  const NitiThinKernels *thin;
  const NitiConvKernels *kernels;
  size_t n, k, c;
  size_t length, outputs; /* of a row of the operand and of the result */
  size_t item, items;     /* outputs of an item */
  bool backward;
} Plan;

typedef struct Pass {
  const Plan *plan;
  const NitiConvOperands *operands;
  const NitiRounder *rounder;
  uint8_t *in;     /* [n][length] */
  int32_t *acc;    /* [n][outputs] */
  uint8_t *shifts; /* [items], the shift by which each item was rounded */
  _Atomic uint32_t max;
} Pass;

static void take_buffers(Pass *p, NitiWorkspace *w) {
  p->in = niti_workspace_take(w, p->plan->n * p->plan->length);
  p->acc = niti_workspace_take(w, p->plan->n * p->plan->outputs * sizeof(int32_t));
  p->shifts = niti_workspace_take(w, p->plan->items);
}

static void sum_item(const Pass *p, size_t first, size_t count) {
  const Plan *plan = p->plan;
  for (size_t n = 0; n < plan->n; n += NITI_THIN_ROWS) {
    const size_t rows = niti_least(NITI_THIN_ROWS, plan->n - n);
    const uint8_t *in = p->in + n * plan->length;
    int32_t *acc = p->acc + n * plan->outputs + first;
    if (plan->backward)
      plan->thin->sums(acc, plan->outputs, in, plan->length, rows, p->operands->w + first, plan->outputs, count, plan->length);
    else
      plan->thin->dots(acc, plan->outputs, in, plan->length, rows, p->operands->w + first * plan->length, count, plan->length);
  }
  for (size_t n = 0; p->operands->bias && n < plan->n; ++n) {
    int32_t *acc = p->acc + n * plan->outputs + first;
    for (size_t i = 0; i < count; ++i) acc[i] = (int32_t)((uint32_t)acc[i] + (uint32_t)p->operands->bias[first + i]);
  }
}

/* Sums stay in the workspace, so that a second pass only rounds. */
static void run_item(void *context, size_t thread, size_t item) {
  Pass *p = context;
  const Plan *plan = p->plan;
  const size_t first = item * plan->item, count = niti_least(plan->item, plan->outputs - first);
  NitiRounder rounder = *p->rounder;
  uint32_t max = 0;
  (void)thread;
  if (!rounder.again) sum_item(p, first, count);
  rounder.shift = niti_part_shift(p->rounder, &p->max);
  if (rounder.again && p->shifts[item] == rounder.shift) return;
  p->shifts[item] = (uint8_t)rounder.shift;
  for (size_t n = 0; n < plan->n; ++n) {
    for (size_t i = 0; i < count; i += NITI_NR_MAX) {
      const size_t at = n * plan->outputs + first + i;
      const int columns = (int)niti_least(NITI_NR_MAX, count - i);
      max = plan->kernels->requantise(p->operands->out, &at, 0, p->acc + at, NITI_NR_MAX, 1, columns, &rounder, max);
    }
  }
  niti_max_raise(&p->max, max);
}

static uint32_t run_pass(const NitiConvPlan *base, NitiCpu *cpu, const NitiConvOperands *operands, const NitiRounder *rounder) {
  const Plan *plan = (const Plan *)base;
  NitiWorkspace memory = niti_conv_memory(cpu);
  Pass p = {.plan = plan, .operands = operands, .rounder = rounder};
  take_buffers(&p, &memory);
  for (size_t i = 0; !rounder->again && i < plan->n * plan->length; ++i) p.in[i] = (uint8_t)(operands->in[i] + 128);
  niti_conv_share(cpu, run_item, &p, plan->items, plan->k * plan->c);
  assert(niti_workspace_intact(&memory));
  return p.max;
}

/* ---- the gradient ---- */

typedef struct Outer {
  const Plan *plan;
  NitiGradient *gradient;
  NitiIsa isa;
  _Atomic uint32_t max;
  size_t pairs;
  int32_t *x, *dy; /* [pairs][c] and [k][pairs], images 2 p and 2 p + 1 in the lower and upper half */
} Outer;

static size_t pairs_of(const Plan *plan) { return niti_divide_up(plan->n, 2); }

static void take_outer(Outer *o, NitiWorkspace *w) {
  o->pairs = pairs_of(o->plan);
  o->x = niti_workspace_take(w, o->pairs * o->plan->c * sizeof(int32_t));
  o->dy = niti_workspace_take(w, o->pairs * o->plan->k * sizeof(int32_t));
}

/* Values i of two images; an odd batch's last one is alone. */
static int32_t pair_of(const int8_t *from, size_t n, size_t length, size_t pair, size_t i) {
  const int8_t *low = from + 2 * pair * length;
  const int32_t high = 2 * pair + 1 < n ? low[length + i] : 0;
  return (int32_t)((uint32_t)high << 16 | (uint16_t)low[i]);
}

static void outer_item(void *context, size_t thread, size_t item) {
  Outer *o = context;
  const Plan *plan = o->plan;
  const size_t end = niti_least((item + 1) * GRADIENT_ROWS, plan->k);
  (void)thread;
  for (size_t k = item * GRADIENT_ROWS; k < end; ++k) {
    int32_t *row = (int32_t *)o->gradient->data + k * plan->c;
    plan->thin->outer(row, o->dy + k * o->pairs, o->x, o->pairs, plan->c);
    niti_conv_look(&o->max, o->isa, row, 1, plan->c, 0);
  }
}

/* int32 becomes int64, from the end on: a number's place is in that of two others. */
static void widen(uint8_t *numbers, size_t count) {
  for (size_t i = count; i-- > 0;) {
    int32_t narrow;
    memcpy(&narrow, numbers + i * sizeof narrow, sizeof narrow);
    const int64_t wide = narrow;
    memcpy(numbers + i * sizeof wide, &wide, sizeof wide);
  }
}

static void run_gradient(const NitiConvPlan *base, NitiCpu *cpu, NitiGradient *gradient, const int8_t *dy, const int8_t *x) {
  const Plan *plan = (const Plan *)base;
  NitiWorkspace memory = niti_conv_memory(cpu);
  Outer o = {.plan = plan, .gradient = gradient, .isa = cpu->isa};
  take_outer(&o, &memory);
  for (size_t p = 0; p < o.pairs; ++p) {
    for (size_t c = 0; c < plan->c; ++c) o.x[p * plan->c + c] = pair_of(x, plan->n, plan->c, p, c);
    for (size_t k = 0; k < plan->k; ++k) o.dy[k * o.pairs + p] = pair_of(dy, plan->n, plan->k, p, k);
  }
  niti_conv_share(cpu, outer_item, &o, niti_divide_up(plan->k, GRADIENT_ROWS), plan->k * plan->c);
  niti_cpu_keep_largest(cpu, gradient, o.max);
  if (gradient->bits == 64) widen(gradient->data, gradient->count);
  assert(niti_workspace_intact(&memory));
}

/* ---- plans ---- */

const NitiThinKernels *niti_thin_kernels(NitiIsa isa) {
#ifdef __x86_64__
  if (isa == NITI_ISA_AVX512VNNI || isa == NITI_ISA_AMX) return &niti_thin_avx512vnni;
#endif
  (void)isa;
  return NULL;
}

bool niti_thin_fits(const NitiConv *s, NitiDirection direction) {
  const bool linear = s->kh == 1 && s->kw == 1 && s->h == 1 && s->w == 1 && s->oh == 1 && s->ow == 1;
  return linear && s->n <= (direction == NITI_GRADIENT ? NITI_THIN_ROWS : MOST_ROWS);
}

/* More rows than one call takes are worth it where weights come from memory. */
bool niti_thin_serves(const NitiConv *s) { return s->n <= NITI_THIN_ROWS || (int64_t)s->k * s->c >= MANY_WEIGHTS; }

NitiConvPlan *niti_thin_prepare(NitiWorkspace *w, const NitiThinKernels *thin, const NitiConvKernels *kernels, const NitiConv *s,
                                NitiDirection direction, NitiConvCut how) {
  Plan p = {.base = {.kernel = thin->name},
            .thin = thin,
            .kernels = kernels,
            .n = (size_t)s->n,
            .k = (size_t)s->k,
            .c = (size_t)s->c,
            .backward = direction == NITI_BACKWARD};
  p.length = p.backward ? p.k : p.c;
  p.outputs = p.backward ? p.c : p.k;
  const size_t columns = niti_round_up(niti_divide_up(p.outputs, how.threads), COLUMNS);
  p.item = p.backward ? niti_least(columns, NITI_THIN_COLUMNS) : OUTPUTS;
  p.items = niti_divide_up(p.outputs, p.item);
  NitiWorkspace run = niti_workspace_begin(NULL, 0);
  if (direction == NITI_GRADIENT) {
    p.base.gradient = run_gradient;
    take_outer(&(Outer){.plan = &p}, &run);
  } else {
    p.base.pass = run_pass;
    take_buffers(&(Pass){.plan = &p}, &run);
  }
  p.base.workspace = run.used;
  Plan *plan = niti_workspace_take(w, sizeof *plan);
  if (!plan) return NULL;
  *plan = p;
  return &plan->base;
}
