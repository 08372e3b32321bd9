/* Checkpoints written on a background thread: hashing and syncing one takes as long as many steps of a fast device. */
#ifndef NITI_TRAIN_SAVER_H
#define NITI_TRAIN_SAVER_H

#include "io/checkpoint.h"
#include "train/run_folder.h"

typedef struct NitiSaver NitiSaver;

/* What to write besides the folder's last.safetensors: the epoch's file before it, since nothing would make up for that after a
 * crash, and best.safetensors after it, since the epoch might not be scored again (niti_run_mend_best). */
typedef enum NitiKeep { NITI_KEEP_LAST = 0, NITI_KEEP_BEST = 1, NITI_KEEP_EPOCH = 2 } NitiKeep;

/* folder is borrowed. Before each save it must still be held (niti_run_folder_hold), else that is the save's failure. */
NitiStatus niti_saver_open(NitiSaver **out, const NitiRunFolder *folder);
/* Waits for a save under way. NULL is accepted. */
void niti_saver_close(NitiSaver *saver);
/* Waits for the previous save and, if it succeeded, begins this one; always takes ownership of the checkpoint. epoch names
 * the file of NITI_KEEP_EPOCH. After a failure to save a state under more names than `last` nothing is saved any more: `last`
 * must not pass by that state, which the next process then saves or trains again. */
NitiStatus niti_saver_begin(NitiSaver *saver, NitiCheckpoint *checkpoint, int keep, int32_t epoch);
/* Waits until everything is written; returns a failure of the last save, once unless nothing is saved any more. */
NitiStatus niti_saver_wait(NitiSaver *saver);

#endif
