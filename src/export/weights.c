/* The weight tensors of an exported network: their order, their places in RAM, and what identifies them. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "export/source.h"

void niti_export_c_name(char out[NITI_EXPORT_NAME_MAX], const char *name, bool upper) {
  size_t i = 0;
  if (isdigit((unsigned char)name[0])) out[i++] = 'n';
  for (; *name && i + 1 < NITI_EXPORT_NAME_MAX; ++name) {
    const int c = isalnum((unsigned char)*name) ? *name : '_';
    out[i++] = (char)(upper ? toupper(c) : c);
  }
  out[i] = 0;
}

static int by_name(const void *a, const void *b) {
  const NitiExportWeight *x = a, *y = b;
  return strcmp(x->tensor->name, y->tensor->name);
}

static NitiStatus find_tensor(NitiExport *e, const NitiCheckpoint *checkpoint, int32_t node, bool bias) {
  const NitiDescribedNode *described = &e->recipe->model->nodes[node];
  NitiExportWeight *w = &e->weights[e->weight_count++];
  char name[NITI_TENSOR_NAME_MAX], symbol[NITI_LAYER_NAME_MAX];
  (void)snprintf(name, sizeof name, "%s.%s", described->spec.name, bias ? "bias" : "weight");
  const NitiCheckpointTensor *t = niti_checkpoint_find(checkpoint, name);
  if (!t || t->dtype != (bias ? NITI_I16 : NITI_I8))
    return niti_fail(NITI_ERROR_FORMAT, "%s: tensor '%s' is missing or not %s", niti_checkpoint_source(checkpoint), name,
                     bias ? "int16" : "int8");
  niti_export_c_name(symbol, described->spec.name, false);
  *w = (NitiExportWeight){
      .tensor = t, .layer = node + 1, .frozen = described->frozen || bias, .bias = bias, .bytes = bias ? sizeof(int16_t) : 1};
  for (int k = 0; k < t->ndim; ++k) w->bytes *= t->dims[k];
  (void)snprintf(w->symbol, sizeof w->symbol, "%c%02d_%s", bias ? 'b' : 'w', node + 1, symbol);
  return NITI_OK;
}

/* Of a layer, as this version of the format has it. */
static void identify(NitiExport *e, const NitiExportWeight *w) {
  e->network = (uint32_t)crc32(e->network, (const Bytef *)w->tensor->name, (uInt)strlen(w->tensor->name) + 1);
  e->network = (uint32_t)crc32(e->network, (const Bytef *)w->tensor->dims, sizeof w->tensor->dims);
  e->network = (uint32_t)crc32(e->network, (const Bytef *)&w->tensor->exponent, sizeof w->tensor->exponent);
  e->network = (uint32_t)crc32(e->network, (const Bytef *)(w->frozen ? "f" : "t"), 1);
  if (w->frozen) e->network = (uint32_t)crc32(e->network, w->tensor->data, (uInt)w->bytes);
}

static void identify_bytes(NitiExport *e, const void *bytes, size_t count) {
  e->network = (uint32_t)crc32(e->network, bytes, (uInt)count);
}

/* What a state goes on with besides its weights: another network's, or another recipe's, is not its own. */
static void identify_recipe(NitiExport *e) {
  const NitiRecipe *r = e->recipe;
  const size_t channels = (size_t)r->model->input.c;
  const int64_t numbers[] = {(int64_t)r->seed, r->data.type,       r->loss,      r->smoothing, r->round_activation,
                             r->round_error,   r->clip_activation, r->clip_error};
  identify_bytes(e, r->model->text, strlen(r->model->text));
  identify_bytes(e, r->optimizer->name, strlen(r->optimizer->name));
  identify_bytes(e, numbers, sizeof numbers);
  identify_bytes(e, r->data.mean, channels * sizeof *r->data.mean);
  identify_bytes(e, r->data.std, channels * sizeof *r->data.std);
}

NitiStatus niti_export_weights_open(NitiExport *e, const NitiCheckpoint *checkpoint) {
  const NitiDescription *d = e->recipe->model;
  NitiExportReport *r = &e->report;
  e->weights = calloc(2 * (size_t)d->node_count + 1, sizeof *e->weights);
  if (!e->weights) return niti_fail(NITI_ERROR_MEMORY, "out of memory for the weights of an export");
  for (int32_t i = 0; i < d->node_count; ++i) {
    if (!d->nodes[i].spec.type->weight_shape) continue;
    NITI_TRY(find_tensor(e, checkpoint, i, false));
    if (d->nodes[i].spec.bias) NITI_TRY(find_tensor(e, checkpoint, i, true));
  }
  identify_recipe(e);
  qsort(e->weights, (size_t)e->weight_count, sizeof *e->weights, by_name);
  for (int32_t i = 0; i < e->weight_count; ++i) {
    NitiExportWeight *w = &e->weights[i];
    w->offset = w->frozen ? 0 : r->trained_weights;
    *(w->frozen ? &r->frozen_weights : &r->trained_weights) += w->bytes;
    r->trained += !w->frozen;
    r->layers += !w->bias;
    identify(e, w);
  }
  return NITI_OK;
}
