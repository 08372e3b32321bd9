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

static NitiStatus find_weight(NitiExport *e, const NitiCheckpoint *checkpoint, int32_t node) {
  const NitiDescribedNode *described = &e->recipe->model->nodes[node];
  NitiExportWeight *w = &e->weights[e->weight_count++];
  char name[NITI_TENSOR_NAME_MAX], symbol[NITI_LAYER_NAME_MAX];
  (void)snprintf(name, sizeof name, "%s.weight", described->spec.name);
  const NitiCheckpointTensor *t = niti_checkpoint_find(checkpoint, name);
  if (!t || t->dtype != NITI_I8)
    return niti_fail(NITI_ERROR_FORMAT, "%s: tensor '%s' is missing or not int8", niti_checkpoint_source(checkpoint), name);
  niti_export_c_name(symbol, described->spec.name, false);
  *w = (NitiExportWeight){.tensor = t, .layer = node + 1, .frozen = described->frozen};
  (void)snprintf(w->symbol, sizeof w->symbol, "w%02d_%s", node + 1, symbol);
  return NITI_OK;
}

NitiStatus niti_export_weights_open(NitiExport *e, const NitiCheckpoint *checkpoint) {
  const NitiDescription *d = e->recipe->model;
  NitiExportReport *r = &e->report;
  e->weights = calloc((size_t)d->node_count + 1, sizeof *e->weights);
  if (!e->weights) return niti_fail(NITI_ERROR_MEMORY, "out of memory for the weights of an export");
  for (int32_t i = 0; i < d->node_count; ++i) {
    if (d->nodes[i].spec.type->weight_shape) NITI_TRY(find_weight(e, checkpoint, i));
  }
  qsort(e->weights, (size_t)e->weight_count, sizeof *e->weights, by_name);
  for (int32_t i = 0; i < e->weight_count; ++i) {
    NitiExportWeight *w = &e->weights[i];
    int64_t count = 1;
    for (int k = 0; k < w->tensor->ndim; ++k) count *= w->tensor->dims[k];
    w->offset = w->frozen ? 0 : r->trained_weights;
    *(w->frozen ? &r->frozen_weights : &r->trained_weights) += count;
    r->trained += !w->frozen;
    e->network = (uint32_t)crc32(e->network, (const Bytef *)w->tensor->name, (uInt)strlen(w->tensor->name) + 1);
    e->network = (uint32_t)crc32(e->network, (const Bytef *)w->tensor->dims, sizeof w->tensor->dims);
    e->network = (uint32_t)crc32(e->network, (const Bytef *)&w->tensor->exponent, sizeof w->tensor->exponent);
    e->network = (uint32_t)crc32(e->network, (const Bytef *)(w->frozen ? "f" : "t"), 1);
    if (w->frozen) e->network = (uint32_t)crc32(e->network, w->tensor->data, (uInt)count);
  }
  r->layers = e->weight_count;
  return NITI_OK;
}
