#!/usr/bin/env bash
# Does guidance help? Labels only, + logits, + block-wise, on equal budget: the same data, epochs, optimiser and gradients
# through rates, T = 4, from random and from the teacher's weights, over several seeds; and block-wise once more with
# gradients through time. Prints the table of docs/results/cifar10-blockwise.md.
#
#   experiments/blockwise_cifar10.sh DATA OUT      e.g. parquet:../shared/data/cifar10-jpeg runs/cifar10-blockwise
#
# The scale is what two cores carry in about two hours; the optimiser is the better of SGD at 0.1 and AdamW at 0.003 and
# 0.001, by the validation accuracy of the labels-only students of seed 0 after 300 to 470 steps.
#
# TEACHER=docs/results/cifar10-blockwise/teacher takes the committed teacher; else it is trained first, into OUT/teacher.
# Every run that is finished is kept, one that was interrupted goes on where it was: say it again after any stop.
set -euo pipefail
data=$1
out=$2
teacher=${TEACHER:-$out/teacher}
spikestill=${SPIKESTILL:-.venv/bin/spikestill}
seeds=${SEEDS-0 1 2}
starts=${STARTS:-random teacher-weights}
random_images=${RANDOM_IMAGES:-20000} random_epochs=${RANDOM_EPOCHS:-4}
warm_images=${WARM_IMAGES:-20000} warm_epochs=${WARM_EPOCHS:-3}
export OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=0

train() { # OUT, then the words of the command
    local folder=$1
    shift
    if [[ -f $folder/result.json ]]; then return; fi
    if [[ -f $folder/recipe.yaml ]]; then
        "$spikestill" "$1" --resume --out "$folder"
    else
        "$spikestill" "$@" --data "$data" --precision bf16 --channels-last true --out "$folder"
    fi
}

train "$teacher" train ann --model resnet20 --epochs "${TEACHER_EPOCHS:-30}"

student() { # METHOD START GRADIENT SEED
    local guide=(--teacher "$teacher" --initialise "$2" --teacher-precision bf16)
    local budget=(--limit-train "$random_images" --epochs "$random_epochs")
    if [[ $1 == labels-only && $2 == random ]]; then guide=(); fi
    if [[ $2 == teacher-weights ]]; then budget=(--limit-train "$warm_images" --epochs "$warm_epochs"); fi
    train "$out/$1-$2-$3-s$4" distill "$1" "${guide[@]}" --student resnet20 --timesteps 4 --gradient "$3" \
        "${budget[@]}" --batch-size 64 --optimiser.name adamw --optimiser.lr 0.003 --clip-gradient null \
        --schedule.warmup 0.2 --seed "$4"
}

for seed in $seeds; do
    for start in $starts; do
        for method in labels-only label-distillation blockwise; do
            student "$method" "$start" rate "$seed"
        done
    done
done
if [[ $starts == *random* ]]; then
    for seed in ${BPTT_SEEDS:-$seeds}; do
        student blockwise random bptt "$seed"
    done
fi

"$spikestill" compare --markdown "$teacher" "$out"/*-s*
