# Kernels carry no types but tl.constexpr, and their tuples grow by sums, the one way that Triton compiles.
# mypy: allow-untyped-defs, allow-incomplete-defs, disable-error-code="assignment"
# ruff: noqa: RUF005
"""The kernels that ``triton_backend`` launches: the passes of ``plain.py``, each program on a block of neurons.

Terms of a current come as tuples of tensors, with or without their tables; what is None is compiled away. A row is one
time step; a segment is a few of them, unrolled.
"""

import triton
import triton.language as tl

__all__ = ["affine", "moments", "products", "rate", "spikes", "spikes_backward"]


# ----------------------------------------------------------------------------------------------------------- the neuron


@triton.jit
def _fire(potential, threshold, rule: tl.constexpr):
    fired = (potential > threshold) if rule.leak_first else (potential >= threshold)
    return tl.where(potential == potential, fired.to(tl.float32), potential)  # not a number stays none


@triton.jit
def _carry(potential, spike, leak, threshold, rule: tl.constexpr):
    if rule.hard:
        return leak * potential * (1.0 - spike)
    elif rule.leak_first:
        return leak * potential - threshold * spike
    else:
        return leak * (potential - threshold * spike)


@triton.jit
def _carry_by_spike(potential, leak, threshold, rule: tl.constexpr):
    if rule.hard:
        return -leak * potential
    elif rule.leak_first:
        return -threshold
    else:
        return -leak * threshold


@triton.jit
def _carry_by_potential(spike, leak, rule: tl.constexpr):
    if rule.hard:
        return leak * (1.0 - spike)
    else:
        return leak


@triton.jit
def _carry_by_leak(potential, spike, threshold, rule: tl.constexpr):
    if rule.hard:
        return potential * (1.0 - spike)
    elif rule.leak_first:
        return potential
    else:
        return potential - threshold * spike


@triton.jit
def _carry_by_threshold(spike, leak, rule: tl.constexpr):
    if rule.hard:
        return tl.zeros_like(spike)
    elif rule.leak_first:
        return -spike
    else:
        return -leak * spike


@triton.jit
def _slope(potential, threshold, first, second, rule: tl.constexpr):
    """The surrogate's derivative; ``first`` and ``second`` are the numbers that the backend has for it."""
    distance = potential - threshold
    if rule.surrogate == "Sigmoid":
        power = tl.exp(-tl.abs(first * distance))
        return first * power / ((1.0 + power) * (1.0 + power))
    elif rule.surrogate == "Linear":
        return first / threshold * _positive(1.0 - tl.abs(distance) / threshold)
    elif rule.surrogate == "ATan":
        scaled = second * distance
        return first / (1.0 + scaled * scaled)
    elif rule.surrogate == "Triangle":
        return _positive(first - second * tl.abs(distance))
    else:
        tl.static_assert(rule.surrogate == "Rectangular")
        return tl.where(tl.abs(distance) < second, first, 0.0)


@triton.jit
def _positive(x):
    return tl.where(x < 0.0, 0.0, x)


# ---------------------------------------------------------------------------------------------------------- the current


@triton.jit
def _block(neurons, block: tl.constexpr):
    """The neurons of this program, and which of them there are."""
    n = tl.program_id(0) * block + tl.arange(0, block)
    return n, n < neurons


@triton.jit
def _channel(n, channels):
    over = _quotient(n.to(tl.uint32), channels[1], channels[2])
    return (over - _quotient(over, channels[3], channels[4]) * tl.cast(channels[0], tl.uint32)).to(tl.int32)


@triton.jit
def _quotient(n, factor, shift):
    return (n + tl.umulhi(n, tl.cast(factor, tl.uint32))) >> tl.cast(shift, tl.uint32)


@triton.jit
def _lookups(terms, channel, mask):
    """What every term of the current is multiplied by and what is added to it."""
    tables = ()
    for i in tl.static_range(len(terms)):
        if len(terms[i]) == 1:
            tables = tables + ((0.0, 0.0),)
        else:
            scale = tl.load(terms[i][1] + channel, mask, other=0.0)
            tables = tables + ((scale, tl.load(terms[i][2] + channel, mask, other=0.0)),)
    return tables


@triton.jit
def _currents(terms, tables, constant: tl.constexpr, row, neurons, n, mask, segment: tl.constexpr):
    """The current at the steps of a segment, whose first one is the row that begins at ``row``."""
    totals = _read(terms[0], tables[0], constant[0], row, neurons, n, mask, segment)
    if len(terms) == 1:
        return totals
    else:
        others = _read(terms[1], tables[1], constant[1], row, neurons, n, mask, segment)
        sums = ()
        for t in tl.static_range(segment):
            sums = sums + (totals[t] + others[t],)
        return sums


@triton.jit
def _read(term, table, constant: tl.constexpr, row, neurons, n, mask, segment: tl.constexpr):
    steps = ()
    if constant:
        values = _scaled(tl.load(term[0] + n, mask, other=0.0).to(tl.float32), term, table)
        for _step in tl.static_range(segment):
            steps = steps + (values,)
    else:
        rows = _rows(term[0], row, neurons, n, mask, segment)
        for t in tl.static_range(segment):
            steps = steps + (_scaled(rows[t].to(tl.float32), term, table),)
    return steps


@triton.jit
def _rows(values, row, neurons, n, mask, segment: tl.constexpr):
    """The rows of a segment, as they are stored."""
    rows = ()
    for _step in tl.static_range(segment):
        rows = rows + (tl.load(values + row + n, mask, other=0.0),)
        row += neurons
    return rows


@triton.jit
def _scaled(values, term, table):
    if len(term) == 1:
        return values
    else:
        return values * table[0] + table[1]


# --------------------------------------------------------------------------------------------------------------- passes


@triton.jit(do_not_specialize=["channels"])
def spikes(
    terms,
    constant: tl.constexpr,
    neurons,
    channels,
    numbers,
    rule: tl.constexpr,
    carry,
    spikes,
    last,
    segments,
    segment: tl.constexpr,
    block: tl.constexpr,
):
    """Spikes of all steps, and the carry after the last."""
    n, mask = _block(neurons, block)
    leak, threshold = tl.load(numbers[0]), tl.load(numbers[1])
    tables = _lookups(terms, _channel(n, channels), mask)
    c = _given(carry, n, mask, block)
    row = tl.cast(0, tl.int64)
    for _segment in range(segments):
        currents = _currents(terms, tables, constant, row, neurons, n, mask, segment)
        for t in tl.static_range(segment):
            v = c + currents[t]
            spike = _fire(v, threshold, rule)
            c = _carry(v, spike, leak, threshold, rule)
            tl.store(spikes + row + n, spike, mask)
            row += neurons
    tl.store(last + n, c, mask)


@triton.jit
def _given(values, n, mask, block: tl.constexpr):
    """A row that is given, else 0."""
    if values is None:
        return tl.zeros([block], tl.float32)
    else:
        return tl.load(values + n, mask, other=0.0).to(tl.float32)


@triton.jit(do_not_specialize=["channels"])
def spikes_backward(
    terms,
    constant: tl.constexpr,
    neurons,
    channels,
    numbers,
    rule: tl.constexpr,
    by_spikes,
    by_last,
    carry,
    by_current,
    by_carry,
    saved,
    sums,
    segments,
    segment: tl.constexpr,
    block: tl.constexpr,
):
    """The potentials are computed again, from the last segment to the first, and stay in registers.

    So memory sees the current and the gradients once for up to 8 steps. Beyond, the current is read twice, and the
    carry before each segment but the last is ``saved`` (of every step where T is a prime above 7, as one row of
    potentials a step would be).
    """
    n, mask = _block(neurons, block)
    leak, threshold = tl.load(numbers[0]), tl.load(numbers[1])
    tables = _lookups(terms, _channel(n, channels), mask)
    c = _given(carry, n, mask, block)
    wide = tl.cast(neurons, tl.int64)
    row, place = tl.cast(0, tl.int64), tl.cast(0, tl.int64)
    if saved is not None:
        for _ in range(segments - 1):
            tl.store(saved + place + n, c, mask)
            place += wide
            currents = _currents(terms, tables, constant, row, neurons, n, mask, segment)
            for t in tl.static_range(segment):
                v = c + currents[t]
                c = _carry(v, _fire(v, threshold, rule), leak, threshold, rule)
            row += wide * segment
        tl.debug_barrier()

    g = _given(by_last, n, mask, block)
    by_leak, by_threshold = tl.zeros([block], tl.float32), tl.zeros([block], tl.float32)
    for _segment in range(segments):
        currents = _currents(terms, tables, constant, row, neurons, n, mask, segment)
        received = _rows(by_spikes, row, neurons, n, mask, segment)
        potentials = ()
        for t in tl.static_range(segment):
            v = c + currents[t]
            potentials = potentials + (v,)
            c = _carry(v, _fire(v, threshold, rule), leak, threshold, rule)
        for back in tl.static_range(segment):
            v = potentials[segment - 1 - back]
            spike, slope = _fire(v, threshold, rule), _slope(v, threshold, numbers[2], numbers[3], rule)
            by_spike = received[segment - 1 - back].to(tl.float32)
            if not rule.detach:
                by_spike = by_spike + g * _carry_by_spike(v, leak, threshold, rule)
            if sums is not None:
                by_leak = by_leak + g * _carry_by_leak(v, spike, threshold, rule)
                by_threshold = by_threshold + g * _carry_by_threshold(spike, leak, rule) - by_spike * slope
            g = by_spike * slope + g * _carry_by_potential(spike, leak, rule)
            tl.store(by_current + (row + wide * (segment - 1 - back)) + n, g, mask)
        if saved is not None:
            row -= wide * segment
            place = tl.maximum(place - wide, 0)  # after the first segment there is nothing to read, and no use of it
            c = tl.load(saved + place + n, mask, other=0.0)
    tl.store(by_carry + n, g, mask)
    if sums is not None:
        tl.store(sums + tl.program_id(0), tl.sum(tl.where(mask, by_leak, 0.0)))
        tl.store(sums + tl.num_programs(0) + tl.program_id(0), tl.sum(tl.where(mask, by_threshold, 0.0)))


@triton.jit(do_not_specialize=["channels"])
def rate(
    terms,
    constant: tl.constexpr,
    neurons,
    channels,
    numbers,
    rule: tl.constexpr,
    carry,
    state,
    spikes,
    means,
    after,
    steps,
    learn: tl.constexpr,
    segments,
    segment: tl.constexpr,
    block: tl.constexpr,
):
    """``k``, ``e`` and their kin by leak and threshold are plain's sensitivities and eligibilities.

    All steps from a ``carry``, whose ``means`` are wanted; or some of them from a ``state``, where that ``after`` them
    is. Each is a tuple of rows: states as ``RateState`` has them.
    """
    n, mask = _block(neurons, block)
    leak, threshold = tl.load(numbers[0]), tl.load(numbers[1])
    tables = _lookups(terms, _channel(n, channels), mask)
    zero = tl.zeros([block], tl.float32)
    total, e, k_leak, e_leak, k_threshold, e_threshold = zero, zero, zero, zero, zero, zero
    if state is None:
        c = _given(carry, n, mask, block)
        k = tl.cast(1.0, tl.float32)
    else:
        c = tl.load(state[0] + n, mask, other=0.0)
        k = tl.load(state[1])
        total, e = tl.load(state[2] + n, mask, other=0.0), tl.load(state[3] + n, mask, other=0.0)
        if learn:
            k_leak, e_leak = tl.load(state[4] + n, mask, other=0.0), tl.load(state[5] + n, mask, other=0.0)
            k_threshold, e_threshold = tl.load(state[6] + n, mask, other=0.0), tl.load(state[7] + n, mask, other=0.0)
    if rule.hard or not rule.detach:  # else no spike enters k, so it is the same for all neurons
        k = zero + 1.0 if state is None else tl.load(state[1] + n, mask, other=0.0)
    row = tl.cast(0, tl.int64)
    for _segment in range(segments):
        currents = _currents(terms, tables, constant, row, neurons, n, mask, segment)
        for t in tl.static_range(segment):
            v = c + currents[t]
            spike, slope = _fire(v, threshold, rule), _slope(v, threshold, numbers[2], numbers[3], rule)
            by_potential = _carry_by_potential(spike, leak, rule)
            total += spike
            change = slope * k
            e += change
            k = 1.0 + by_potential * k + _reset(v, change, leak, threshold, rule)
            if learn:
                change = slope * k_leak
                e_leak += change
                direct = _carry_by_leak(v, spike, threshold, rule)
                k_leak = direct + by_potential * k_leak + _reset(v, change, leak, threshold, rule)
                change = slope * (k_threshold - 1.0)
                e_threshold += change
                direct = _carry_by_threshold(spike, leak, rule)
                k_threshold = direct + by_potential * k_threshold + _reset(v, change, leak, threshold, rule)
            c = _carry(v, spike, leak, threshold, rule)
            tl.store(spikes + row + n, spike, mask)
            row += neurons
    if after is None:
        tl.store(means[0] + n, tl.div_rn(total, steps), mask)
        tl.store(means[1] + n, tl.div_rn(e, steps), mask)
        if learn:
            tl.store(means[2] + n, tl.div_rn(e_leak, steps), mask)
            tl.store(means[3] + n, tl.div_rn(e_threshold, steps), mask)
    else:
        rows = (c, zero + k, total, e, k_leak, e_leak, k_threshold, e_threshold)
        for i in tl.static_range(len(after)):
            tl.store(after[i] + n, rows[i], mask)


@triton.jit
def _reset(potential, change, leak, threshold, rule: tl.constexpr):
    """What a change of the spike changes by the reset."""
    if rule.detach:
        return 0.0
    else:
        return _carry_by_spike(potential, leak, threshold, rule) * change


@triton.jit(do_not_specialize=["channels"])
def affine(
    values,
    slope,
    shift,
    addend,
    scale,
    result,
    neurons,
    channels,
    segments,
    segment: tl.constexpr,
    block: tl.constexpr,
):
    """``values * slope + shift``, and ``addend * scale`` where there is one."""
    n, mask = _block(neurons, block)
    channel = _channel(n, channels)
    a, b = tl.load(slope + channel, mask, other=0.0), tl.load(shift + channel, mask, other=0.0)
    if addend is not None:
        factor = tl.load(scale + channel, mask, other=0.0)
    row = tl.cast(0, tl.int64)
    for _segment in range(segments):
        read = _rows(values, row, neurons, n, mask, segment)
        if addend is not None:
            added = _rows(addend, row, neurons, n, mask, segment)
        for t in tl.static_range(segment):
            total = read[t].to(tl.float32) * a + b
            if addend is not None:
                total = total + added[t].to(tl.float32) * factor
            tl.store(result + row + n, total, mask)
            row += neurons


# ------------------------------------------------------------------------------------------------------ sums by channel


@triton.jit
def _columns(strips, width, blocks, block: tl.constexpr, by_column: tl.constexpr):
    """Of this program: its chunk of the rows, its columns' places, which columns there are, and their channels."""
    strip, rest = tl.program_id(0) % strips, tl.program_id(0) // strips
    columns = rest % blocks * block + tl.arange(0, block)
    if by_column:
        return rest // blocks, columns, columns < width, columns
    else:
        return rest // blocks, strip * width + columns, columns < width, strip


@triton.jit
def _tile(index, rows, stride, start, inside, block: tl.constexpr):
    """The neurons of a tile, and which of them there are."""
    row = index * block + tl.arange(0, block)
    return row[:, None] * stride + start[None, :], (row < rows)[:, None] & inside[None, :]


@triton.jit
def _hand_in(parts, chunk, sums, others, channel, inside, width, blocks, by_column: tl.constexpr):
    """Writes this program's two sums of every channel it has a part in."""
    if by_column:
        place = parts + chunk * width + channel
        tl.store(place, tl.sum(sums, 0), inside)
        tl.store(place + tl.num_programs(0) // blocks * width, tl.sum(others, 0), inside)
    else:
        tl.store(parts + tl.program_id(0), tl.sum(sums))
        tl.store(parts + tl.num_programs(0) + tl.program_id(0), tl.sum(others))


@triton.jit(do_not_specialize=["rows", "units", "blocks", "each"])
def moments(
    values,
    over_time,
    parts,
    steps,
    neurons,
    rows,
    strips,
    units,
    blocks,
    each,
    row_block: tl.constexpr,
    column_block: tl.constexpr,
    aligned: tl.constexpr,
    by_column: tl.constexpr,
    segments,
    segment: tl.constexpr,
):
    """A neuron's mean over time is added up apart, without the pivot, which is another neuron's value."""
    width = units * aligned
    chunk, start, inside, channel = _columns(strips, width, blocks, column_block, by_column)
    sums, squares = tl.zeros([row_block, column_block], tl.float32), tl.zeros([row_block, column_block], tl.float32)
    if by_column:
        pivot = tl.load(values + channel, inside, other=0.0).to(tl.float32)[None, :]
    else:
        pivot = tl.load(values + channel * width).to(tl.float32)
    for i in range(each):
        n, mask = _tile(chunk * each + i, rows, strips * width, start, inside, row_block)
        total = tl.zeros([row_block, column_block], tl.float32)
        row = tl.cast(0, tl.int64)
        for _segment in range(segments):
            for _step in tl.static_range(segment):
                x = tl.load(values + row + n, mask, other=0.0).to(tl.float32)
                row += neurons
                total += x
                distance = tl.where(mask, x - pivot, 0.0)
                sums += distance
                squares += distance * distance
        tl.store(over_time + n, tl.div_rn(total, steps), mask)
    if parts is not None:
        _hand_in(parts, chunk, sums, squares, channel, inside, width, blocks, by_column)


@triton.jit(do_not_specialize=["rows", "units", "blocks", "each"])
def products(
    delta,
    factor,
    values,
    mean,
    product,
    parts,
    neurons,
    rows,
    strips,
    units,
    blocks,
    each,
    row_block: tl.constexpr,
    column_block: tl.constexpr,
    aligned: tl.constexpr,
    by_column: tl.constexpr,
    segments,
    segment: tl.constexpr,
):
    """The product with the factor, and by channel its sum and its sum with the centred values."""
    width = units * aligned
    chunk, start, inside, channel = _columns(strips, width, blocks, column_block, by_column)
    sums, by_values = tl.zeros([row_block, column_block], tl.float32), tl.zeros([row_block, column_block], tl.float32)
    if mean is not None:
        if by_column:
            centre = tl.load(mean + channel, inside, other=0.0)[None, :]
        else:
            centre = tl.load(mean + channel)
    for i in range(each):
        n, mask = _tile(chunk * each + i, rows, strips * width, start, inside, row_block)
        row = tl.cast(0, tl.int64)
        for _segment in range(segments):
            for _step in tl.static_range(segment):
                d = tl.load(delta + row + n, mask, other=0.0).to(tl.float32)
                if factor is not None:
                    d = d * tl.load(factor + row + n, mask, other=0.0).to(tl.float32)
                    tl.store(product + row + n, d, mask)
                if values is not None:
                    x = tl.load(values + row + n, mask, other=0.0).to(tl.float32)
                    sums += d
                    by_values += tl.where(mask, d * (x - centre), 0.0)
                row += neurons
    if parts is not None:
        _hand_in(parts, chunk, sums, by_values, channel, inside, width, blocks, by_column)
