#include "model/network.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

/* Small values that live beside the tensors, one set a node (and a fork edge): exponents and predicted shifts. */
enum { ACT_EXPONENT, DELTA_EXPONENT, WEIGHT_EXPONENT, FORWARD_SHIFT, BACKWARD_SHIFT, SCALARS };

static size_t align_up(size_t bytes) { return (bytes + NITI_ALIGN - 1) / NITI_ALIGN * NITI_ALIGN; }

static int32_t *scalar(const NitiNetwork *net, int32_t node, int which) {
  return (int32_t *)net->scalars + node * SCALARS + which;
}

static int8_t *at(const NitiNetwork *net, NitiPlace place) {
  return place.offset < 0 ? NULL : (int8_t *)net->arena + place.offset;
}

/* Where fork f's waiting error keeps its scalars: behind the nodes'. */
static int32_t fork_set(const NitiNetwork *net, int32_t f) { return net->plan->count + 1 + f; }

static NitiTensor act_of(const NitiNetwork *net, int32_t i) {
  const int32_t owner = net->plan->links[i].act_exponent;
  return (NitiTensor){at(net, net->plan->act[i]), scalar(net, owner, ACT_EXPONENT), net->plan->nodes[i].out, false, false};
}

static NitiTensor delta_of(const NitiNetwork *net, int32_t i) {
  const NitiLink *link = &net->plan->links[i];
  return (NitiTensor){at(net, net->plan->delta[i]), scalar(net, link->delta_exponent, DELTA_EXPONENT), net->plan->nodes[i].out,
                      link->delta_operand, link->delta_only_operand};
}

static void connect(NitiNetwork *net, NitiNode *node) {
  const int32_t i = node->index;
  node->y = act_of(net, i);
  node->dy = delta_of(net, i);
  node->extra = at(net, net->plan->extra[i]);
  for (int k = 0; k < node->input_count; ++k) {
    const int32_t from = node->inputs[k];
    node->x[k] = act_of(net, from);
    node->dx[k] = delta_of(net, from); /* a fork's later consumers are redirected below */
    if (net->plan->links[from].forks) node->dx[k].gradient_operand = node->dx[k].gradient_only = false; /* the sum is */
  }
  node->forward_rq =
      (NitiRequantise){net->options.round_activation, NITI_DRAW_ROUND_ACT, (uint32_t)i, scalar(net, i, FORWARD_SHIFT)};
  node->backward_rq =
      (NitiRequantise){net->options.round_error, NITI_DRAW_ROUND_DELTA, (uint32_t)i, scalar(net, i, BACKWARD_SHIFT)};
}

/* Only while weights stay the same is it of use to keep them packed. */
static size_t packed_of(const NitiPlan *plan, const NitiNode *node, const NitiBackend *backend) {
  return plan->training || !node->spec.type->packed ? 0 : align_up(node->spec.type->packed(node, backend));
}

static void connect_all(NitiNetwork *net) {
  NitiPlan *plan = net->plan;
  size_t weight_at = 0, gradient_at = 0, packed_at = 0;
  for (int32_t i = 1; i <= plan->count; ++i) {
    NitiNode *node = &plan->nodes[i];
    connect(net, node);
    const size_t count = niti_shape_count(node->weight.shape);
    if (count == 0) continue;
    node->weight.data = (int8_t *)net->weights + weight_at;
    node->weight.exponent = scalar(net, i, WEIGHT_EXPONENT);
    weight_at += align_up(count);
    const size_t packed = packed_of(plan, node, net->backend);
    node->packed = packed > 0 ? (uint8_t *)net->packed + packed_at : NULL;
    packed_at += packed;
    if (!plan->training) continue;
    const int bits = niti_plan_terms(plan, i).gradient_bits;
    node->gradient = (NitiGradient){(int8_t *)net->gradients + gradient_at, bits, count};
    gradient_at += align_up(count * (size_t)bits / 8);
  }
  for (int32_t f = 0; f < plan->fork_count; ++f) {
    const NitiForkEdge *edge = &plan->forks[f];
    NitiTensor *dx = &plan->nodes[edge->node].dx[edge->slot];
    dx->data = at(net, edge->place);
    dx->exponent = scalar(net, fork_set(net, f), DELTA_EXPONENT);
  }
  net->input = act_of(net, 0);
  net->logits = act_of(net, plan->count);
  net->delta = delta_of(net, plan->count);
  net->loss_rq = (NitiRequantise){net->options.round_error, NITI_DRAW_ROUND_DELTA, 0, scalar(net, 0, BACKWARD_SHIFT)};
}

/* Bytes of everything that a plan wants of a backend. */
typedef struct Needs {
  size_t arena, scalars, weights, gradients, packed, workspace;
} Needs;

static Needs needs_of(const NitiPlan *plan, const NitiBackend *backend) {
  Needs needs = {.arena = plan->arena_bytes};
  for (int32_t i = 1; i <= plan->count; ++i) {
    const NitiNode *node = &plan->nodes[i];
    const size_t count = niti_shape_count(node->weight.shape);
    needs.weights += align_up(count);
    if (plan->training) needs.gradients += align_up(count * (size_t)niti_plan_terms(plan, i).gradient_bits / 8);
    needs.packed += packed_of(plan, node, backend);
    const size_t wanted = node->spec.type->workspace ? node->spec.type->workspace(node, backend) : 0;
    if (wanted > needs.workspace) needs.workspace = wanted;
  }
  needs.scalars = ((size_t)plan->count + 1 + (size_t)plan->fork_count) * SCALARS * sizeof(int32_t);
  return needs;
}

static size_t sum_of(const Needs *n) { return n->arena + n->scalars + n->weights + n->gradients + n->packed + n->workspace; }

static NitiStatus allocate(NitiNetwork *net) {
  NitiBackend *b = net->backend;
  const Needs needs = needs_of(net->plan, b);
  NITI_TRY(b->ops->alloc(b, &net->arena, needs.arena));
  NITI_TRY(b->ops->alloc(b, &net->scalars, needs.scalars));
  if (needs.weights > 0) NITI_TRY(b->ops->alloc(b, &net->weights, needs.weights));
  if (needs.gradients > 0) NITI_TRY(b->ops->alloc(b, &net->gradients, needs.gradients));
  if (needs.packed > 0) {
    NITI_TRY(b->ops->alloc(b, &net->packed, needs.packed));
    b->ops->clear(b, net->packed, needs.packed);
  }
  NITI_TRY(b->ops->reserve(b, needs.workspace));
  net->memory_bytes = sum_of(&needs);
  return NITI_OK;
}

/* Whether a batch would have fitted; some is left for what a run needs beside its network. */
static bool fits(const NitiDescription *description, const NitiBackend *backend, const NitiNetworkOptions *options, int32_t batch,
                 size_t bytes) {
  NitiPlan *plan = NULL;
  if (niti_plan_open(&plan, description, backend, batch, options->training) != NITI_OK) return false;
  const Needs needs = needs_of(plan, backend);
  niti_plan_close(plan);
  return sum_of(&needs) <= bytes - bytes / 32;
}

/* Adds to the message that memory ran out which batch would fit, where the backend knows what it has; nothing of the network is
 * allocated any more. */
static NitiStatus suggest_batch(const NitiDescription *description, NitiBackend *backend, const NitiNetworkOptions *options) {
  char why[512];
  (void)snprintf(why, sizeof why, "%s", niti_error());
  const size_t bytes = backend->ops->free_bytes(backend);
  if (bytes == SIZE_MAX) return niti_fail(NITI_ERROR_MEMORY, "%s", why);
  int32_t good = 0, bad = options->batch;
  while (bad - good > 1) {
    const int32_t middle = good + (bad - good) / 2;
    if (fits(description, backend, options, middle, bytes)) {
      good = middle;
    } else {
      bad = middle;
    }
  }
  if (good == 0) return niti_fail(NITI_ERROR_MEMORY, "%s; model '%s' does not fit even with batch 1", why, description->name);
  return niti_fail(NITI_ERROR_MEMORY, "%s; of model '%s' a batch of %d would fit (asked for: %d)", why, description->name, good,
                   options->batch);
}

NitiStatus niti_network_open(NitiNetwork **out, const NitiDescription *description, NitiBackend *backend,
                             const NitiNetworkOptions *options) {
  *out = NULL;
  NitiNetwork *net = calloc(1, sizeof *net);
  if (!net) return niti_fail(NITI_ERROR_MEMORY, "out of memory for a network");
  net->backend = backend;
  net->options = *options;
  NitiStatus status = niti_plan_open(&net->plan, description, backend, options->batch, options->training);
  if (status != NITI_OK) {
    niti_network_close(net);
    return status;
  }
  status = allocate(net);
  if (status != NITI_OK) {
    niti_network_close(net);
    return status == NITI_ERROR_MEMORY ? suggest_batch(description, backend, options) : status;
  }
  connect_all(net);
  niti_network_set_batch(net, options->batch, options->training);
  *out = net;
  return NITI_OK;
}

void niti_network_close(NitiNetwork *net) {
  if (!net) return;
  if (net->backend) {
    void *owned[] = {net->arena, net->scalars, net->weights, net->gradients, net->packed};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; ++i) {
      if (owned[i]) net->backend->ops->release(net->backend, owned[i]);
    }
  }
  niti_plan_close(net->plan);
  free(net);
}

void niti_network_set_batch(NitiNetwork *net, int32_t n, bool training) {
  assert(n >= 1 && n <= net->options.batch);
  NitiRounding mode = net->options.round_activation;
  if (!training && mode == NITI_STOCHASTIC) mode = NITI_NEAREST; /* evaluation draws no random number */
  const NitiLink *links = net->plan->links;
  for (int32_t i = 1; i <= net->plan->count; ++i) {
    NitiNode *node = &net->plan->nodes[i];
    node->training = training;
    node->forward_rq.mode = mode;
    node->y.shape.n = node->dy.shape.n = n;
    node->y.gradient_operand = training && links[i].act_operand;
    for (int k = 0; k < node->input_count; ++k) {
      node->x[k].shape.n = node->dx[k].shape.n = n;
      node->x[k].gradient_operand = training && links[node->inputs[k]].act_operand;
    }
  }
  net->input.gradient_operand = training && links[0].act_operand;
  net->input.shape.n = net->logits.shape.n = net->delta.shape.n = n;
}

void niti_network_forward(NitiNetwork *net) {
  for (int32_t i = 1; i <= net->plan->count; ++i) {
    NitiNode *node = &net->plan->nodes[i];
    node->spec.type->forward(node, net->backend);
  }
}

void niti_network_backward_node(NitiNetwork *net, int32_t i, int32_t *fork) {
  NitiPlan *plan = net->plan;
  NitiNode *node = &plan->nodes[i];
  if (!plan->active[i] || !node->dy.data) return;
  node->spec.type->backward(node, net->backend);
  for (; *fork < plan->fork_count && plan->forks[*fork].node == i; ++*fork) {
    const NitiForkEdge *edge = &plan->forks[*fork];
    const int32_t from = node->inputs[edge->slot];
    NitiTensor sum = delta_of(net, from);
    sum.shape.n = node->dy.shape.n;
    const NitiRequantise rq = {net->options.round_error, NITI_DRAW_FORK, (uint32_t)from + 65536u * (uint32_t)edge->addition,
                               scalar(net, fork_set(net, *fork), BACKWARD_SHIFT)};
    net->backend->ops->add(net->backend, &sum, &sum, &node->dx[edge->slot], &rq);
  }
}

void niti_network_backward(NitiNetwork *net) {
  int32_t fork = 0;
  for (int32_t i = net->plan->count; i >= 1; --i) niti_network_backward_node(net, i, &fork);
}

int32_t niti_network_weight_count(const NitiNetwork *net) {
  int32_t count = 0;
  for (int32_t i = 1; i <= net->plan->count; ++i) count += net->plan->nodes[i].spec.type->weight_shape != NULL;
  return count;
}

NitiNode *niti_network_weight_node(const NitiNetwork *net, int32_t i) {
  for (int32_t at_node = 1; at_node <= net->plan->count; ++at_node) {
    if (net->plan->nodes[at_node].spec.type->weight_shape && i-- == 0) return &net->plan->nodes[at_node];
  }
  return NULL;
}

NitiWeight niti_network_weight(const NitiNetwork *net, int32_t i) {
  const NitiNode *node = niti_network_weight_node(net, i);
  const NitiShape s = node->weight.shape;
  NitiWeight weight = {
      .layer = node->spec.name, .node = node->index, .ndim = node->spec.type->weight_dims, .count = niti_shape_count(s)};
  const uint32_t four[4] = {(uint32_t)s.n, (uint32_t)s.h, (uint32_t)s.w, (uint32_t)s.c}, two[2] = {(uint32_t)s.n, (uint32_t)s.c};
  for (int d = 0; d < weight.ndim; ++d) weight.dims[d] = weight.ndim == 2 ? two[d] : four[d];
  return weight;
}

void niti_network_get_weight(const NitiNetwork *net, int32_t i, int8_t *mantissas, int32_t *exponent) {
  const NitiNode *node = niti_network_weight_node(net, i);
  net->backend->ops->download(net->backend, mantissas, node->weight.data, niti_shape_count(node->weight.shape));
  net->backend->ops->download(net->backend, exponent, node->weight.exponent, sizeof *exponent);
}

void niti_network_set_weight(NitiNetwork *net, int32_t i, const int8_t *mantissas, int32_t exponent) {
  NitiNode *node = niti_network_weight_node(net, i);
  net->backend->ops->upload(net->backend, node->weight.data, mantissas, niti_shape_count(node->weight.shape));
  net->backend->ops->upload(net->backend, node->weight.exponent, &exponent, sizeof exponent);
  if (node->packed) net->backend->ops->clear(net->backend, node->packed, sizeof(uint64_t));
}

NitiStatus niti_network_init_weight(NitiNetwork *net, int32_t i, uint64_t seed) {
  const NitiNode *node = niti_network_weight_node(net, i);
  const NitiShape s = node->weight.shape;
  const size_t count = niti_shape_count(s);
  int8_t *mantissas = malloc(count);
  if (!mantissas) return niti_fail(NITI_ERROR_MEMORY, "%s: out of memory for %zu initial weights", node->spec.name, count);
  for (size_t k = 0; k < count; ++k) mantissas[k] = niti_init_weight(seed, (uint32_t)node->index, k);
  const int64_t window = (int64_t)s.h * s.w;
  niti_network_set_weight(net, i, mantissas, niti_init_exponent(window * s.c, window * s.n));
  free(mantissas);
  return NITI_OK;
}

NitiStatus niti_network_init(NitiNetwork *net, uint64_t seed) {
  const int32_t count = niti_network_weight_count(net);
  for (int32_t i = 0; i < count; ++i) NITI_TRY(niti_network_init_weight(net, i, seed));
  return NITI_OK;
}
