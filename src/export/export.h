/* Exports a network as C99 for processors without an operating system: docs/microcontrollers.md. */
#ifndef NITI_EXPORT_EXPORT_H
#define NITI_EXPORT_EXPORT_H

#include "platform/status.h"

typedef enum NitiExportLayout {
  NITI_EXPORT_CMAKE,
  NITI_EXPORT_PLATFORMIO,
  NITI_EXPORT_ARDUINO,
  NITI_EXPORT_ZEPHYR,
  NITI_EXPORT_CMSIS_PACK,
} NitiExportLayout;

/* "cmake", "platformio", ...; ends with NULL. */
extern const char *const niti_export_layouts[];

enum { NITI_EXPORT_NAME_MAX = 64, NITI_EXPORT_STACK = 1024 /* bytes: a bound for 32-bit processors, from -O1 on */ };

typedef struct NitiExportOptions {
  const char *out;   /* the folder; made where it is missing, must not hold anything else */
  const char *name;  /* of the C interface; NULL: the model's, with '_' for what C does not allow */
  const char *train; /* "all", "none", "last:N", "LAYER,..."; NULL: as the recipe's `freeze` says */
  int32_t batch;     /* the most images of a step */
  int64_t budget;    /* bytes of RAM, stack included; 0: no limit */
  bool fast;         /* use RAM to save time */
  NitiExportLayout layout;
} NitiExportOptions;

/* What an exported network needs, in bytes and, per image, multiply-adds. */
typedef struct NitiExportReport {
  char name[NITI_EXPORT_NAME_MAX];
  int32_t batch, trained, layers;                /* layers with weights that are trained, and all */
  int64_t trained_weights, frozen_weights;       /* the former also lie in flash, as their initial values */
  int64_t context, arena, stack, ram;            /* ram: their sum; context: weights and state */
  int64_t image;                                 /* pixels of one image, which are the caller's, where it has whole ones */
  int64_t multiply_adds, training_multiply_adds; /* forward; forward and backward of a training step, as if no delta were 0 */
  int64_t row;                                   /* bytes of an update's sums in the largest layer */
  char fullest[96];                              /* the step that needs most of the arena */
  int64_t step;                                  /* with which the device begins, of training steps */
  int32_t mu;                                    /* and its learning rate then */
  bool scheduled;                                /* the recipe changes mu during a run, which the export leaves to the firmware */
  bool default_scale;                            /* the recipe has no mean and std: 0.5 and 0.5 are used */
  bool augmented;                                /* the recipe changes training images, which a device does not */
  bool flips;                                    /* the recipe scores images with their mirrors, which a device does not */
} NitiExportReport;

/* Writes the folder: NAME.c, NAME.h, the runtime, NAME.safetensors (what the device starts from, with its recipe), arena.txt and
 * the files of the layout; NAME.sha256 lists them (folder.h). network: as niti_model_open takes it. Nothing is written unless
 * everything can be. Statuses: ARGUMENT, FILE,
 * FORMAT, MODEL, UNSUPPORTED (an operation that the runtime lacks, or a budget that is not enough: naming the layer), MEMORY. */
NitiStatus niti_export_c(NitiExportReport *out, const char *network, const NitiExportOptions *options);

#endif
