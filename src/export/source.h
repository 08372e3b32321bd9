/* The generated files of an exported network. */
#ifndef NITI_EXPORT_SOURCE_H
#define NITI_EXPORT_SOURCE_H

#include <stdio.h>

#include "export/export.h"
#include "export/import.h"
#include "export/plan.h"
#include "io/checkpoint.h"
#include "train/recipe.h"

/* A weight tensor of the network, or a bias, which is never trained. */
typedef struct NitiExportWeight {
  const NitiCheckpointTensor *tensor;
  char symbol[2 * NITI_LAYER_NAME_MAX]; /* of its constants */
  int32_t layer;
  bool frozen, bias;
  int64_t bytes;
  int64_t offset; /* of a trained one, among the network's weights in RAM */
} NitiExportWeight;

typedef struct NitiExport {
  const NitiRecipe *recipe;
  NitiExportPlan training, inference; /* training.program NULL: nothing is trained */
  NitiExportWeight *weights;          /* in byte order of the names, as the hash has them */
  int32_t weight_count;
  int8_t *table; /* [channels][256] */
  int32_t table_exponent;
  uint32_t network; /* identifies saved states */
  char name[NITI_EXPORT_NAME_MAX], upper[NITI_EXPORT_NAME_MAX];
  NitiDeviceStart start;
  NitiExportReport report;
} NitiExport;

/* A name as C allows it. */
void niti_export_c_name(char out[NITI_EXPORT_NAME_MAX], const char *name, bool upper);
/* Finds the weights of e->recipe's model in a checkpoint, which must outlive them (e->weights is the caller's to free), and
 * counts them in e->report. */
NitiStatus niti_export_weights_open(NitiExport *e, const NitiCheckpoint *checkpoint);
bool niti_export_trains(const NitiExport *e);
/* How many exponents, and predicted shifts, the context holds. */
int32_t niti_export_exponents(const NitiExport *e);
int32_t niti_export_hints(const NitiExport *e);
/* Writes NAME.h, NAME.c and arena.txt: what lies where in the arena, and when. Failures of the stream are the caller's to find.
 */
void niti_export_write_header(FILE *to, const NitiExport *e);
void niti_export_write_source(FILE *to, const NitiExport *e);
void niti_export_write_arena(FILE *to, const NitiExport *e);
/* Parts of NAME.c: values of pixels as mantissas, the reading of images, and the values of an array. */
void niti_export_write_mantissas(FILE *to, const NitiExport *e);
void niti_export_write_input(FILE *to, const NitiExport *e);
void niti_export_write_bytes(FILE *to, const int8_t *p, size_t count);

#endif
