/* Which classes a network takes for which, and the images on which it is most wrong. */
#ifndef NITI_TRAIN_CONFUSION_H
#define NITI_TRAIN_CONFUSION_H

#include "data/loader.h"
#include "io/picture.h"
#include "model/network.h"
#include "train/mirror.h"

enum { NITI_CONFUSION_CLASSES_MAX = 2048, NITI_CONFUSION_WRONG_MAX = 36, NITI_CONFUSION_NAME_MAX = 24 };

/* A wrong answer. */
typedef struct NitiWrong {
  int64_t loss; /* of the image: niti_flip_loss */
  int32_t label, predicted;
  uint8_t *pixels; /* what the network saw, [H][W][C] of `image`; owned */
} NitiWrong;

typedef struct NitiConfusion {
  int32_t classes;
  int64_t *counts;                           /* [true class][class of the largest logit, the first of equals] */
  char (*names)[NITI_CONFUSION_NAME_MAX];    /* of classes, for pictures; cut where they are long */
  NitiWrong wrong[NITI_CONFUSION_WRONG_MAX]; /* those of the largest loss, in descending order; of equals the first */
  int32_t wrong_count;
  NitiShape image; /* the network's input, thinned out to at most 128 pixels a side */
  int32_t every;   /* of how many rows and columns one is kept */
  bool keeps_images;
  int8_t *logits; /* of one batch */
  int32_t *row;   /* of one image */
} NitiConfusion;

/* For batches of at most `batch` images of a network with this input. keeps_images: fills `wrong`, where the input is an image of
 * 1 or 3 channels. Names are numbers at first. More than NITI_CONFUSION_CLASSES_MAX classes: NITI_ERROR_UNSUPPORTED. */
NitiStatus niti_confusion_open(NitiConfusion **out, int32_t classes, int32_t batch, NitiShape input, bool keeps_images);
void niti_confusion_close(NitiConfusion *confusion); /* NULL is accepted */
void niti_confusion_name(NitiConfusion *confusion, int32_t label, const char *name);
/* Forgets all counts and images. */
void niti_confusion_clear(NitiConfusion *confusion);
/* Counts a batch that the network has just evaluated, by the mirror's sums where it is not NULL. Waits. */
NitiStatus niti_confusion_add(NitiConfusion *confusion, NitiNetwork *net, const NitiMirror *mirror, const NitiBatch *batch);

/* The counts as a picture: a row per true class, a column per predicted one; the darker, the larger its share of the row, right
 * answers blue and wrong ones red; with numbers and names where there is room. */
NitiStatus niti_confusion_picture(NitiPicture *out, const NitiConfusion *confusion);
/* The images of `wrong` with true class (green) and predicted class (red); where there is none, *out is zeroed. */
NitiStatus niti_confusion_page(NitiPicture *out, const NitiConfusion *confusion);

#endif
