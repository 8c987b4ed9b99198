// The turnable view of a plan: WebGL 1, parallel projection, no other file. Places are LPS mm from the middle of the liver.
(function () {
  "use strict";
  const figure = document.getElementById("view3d"), canvas = figure.querySelector("canvas");
  const scene = JSON.parse(document.getElementById("scene").textContent);
  const gl = canvas.getContext("webgl", { alpha: false, antialias: true, preserveDrawingBuffer: true });
  if (!gl || !scene.parts.length || !gl.getExtension("OES_element_index_uint")) return; // the still pictures stay
  figure.classList.add("live");

  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
  const shader = (kind, source) => {
    const made = gl.createShader(kind);
    gl.shaderSource(made, source);
    gl.compileShader(made);
    return made;
  };
  const program = gl.createProgram();
  gl.attachShader(program, shader(gl.VERTEX_SHADER,
    "attribute vec3 place, normal; uniform mat3 turn; uniform vec3 scale, away; varying vec3 n, at;" +
    "void main() { at = place; n = turn * normal; vec3 s = turn * (place + away) * scale; gl_Position = vec4(s.xy, -s.z, 1.0); }"));
  gl.attachShader(program, shader(gl.FRAGMENT_SHADER,
    "precision mediump float; varying vec3 n, at; uniform vec4 colour; uniform float striped;" +
    "void main() { float light = 0.25 + 0.7 * abs(dot(normalize(n), vec3(-0.2, 0.35, 0.915)));" +
    "float dark = striped > 0.5 && fract((at.x + at.y + at.z) / 9.0) < 0.25 ? 0.45 : 1.0;" +
    "gl_FragColor = vec4(colour.rgb * light * dark, dark < 1.0 ? min(1.0, colour.a + 0.25) : colour.a); }"));
  gl.linkProgram(program);
  gl.useProgram(program);
  const uniform = (name) => gl.getUniformLocation(program, name);
  const turnAt = uniform("turn"), scaleAt = uniform("scale"), awayAt = uniform("away"), colourAt = uniform("colour"), stripedAt = uniform("striped");
  const placeAt = gl.getAttribLocation(program, "place"), normalAt = gl.getAttribLocation(program, "normal");
  gl.enableVertexAttribArray(placeAt);
  gl.enableVertexAttribArray(normalAt);

  const buffer = (kind, data) => {
    const made = gl.createBuffer();
    gl.bindBuffer(kind, made);
    gl.bufferData(kind, data, gl.STATIC_DRAW);
    return made;
  };
  for (const part of scene.parts) {
    const places = Float32Array.from(new Int16Array(bytes(part.places)), (tenths) => tenths / 10);
    const corners = part.wide ? new Uint32Array(bytes(part.triangles)) : new Uint16Array(bytes(part.triangles));
    const normals = new Float32Array(places.length);
    for (let k = 0; k < corners.length; k += 3) {
      const [a, b, c] = [3 * corners[k], 3 * corners[k + 1], 3 * corners[k + 2]];
      const u = [0, 1, 2].map((i) => places[b + i] - places[a + i]), v = [0, 1, 2].map((i) => places[c + i] - places[a + i]);
      for (let i = 0; i < 3; i++) {
        const across = u[(i + 1) % 3] * v[(i + 2) % 3] - u[(i + 2) % 3] * v[(i + 1) % 3];
        normals[a + i] += across; normals[b + i] += across; normals[c + i] += across;
      }
    }
    Object.assign(part, { count: corners.length, place: buffer(gl.ARRAY_BUFFER, places), normal: buffer(gl.ARRAY_BUFFER, normals), corner: buffer(gl.ELEMENT_ARRAY_BUFFER, corners) });
  }

  let yaw = 0, pitch = 0, zoom = 1, apart = 0;
  const turn = () => { // patient to screen: right, up, towards the reader; from the front at 0, 0
    const [ca, sa, cb, sb] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
    return [[ca, -sa, 0], [sb * sa, sb * ca, cb], [-cb * sa, -cb * ca, sb]];
  };
  const onScreen = (rows, place) => rows.map((row) => row[0] * place[0] + row[1] * place[1] + row[2] * place[2]);
  const words = figure.querySelector(".words");
  const marks = [
    ...Object.entries({ R: [-1, 0, 0], L: [1, 0, 0], A: [0, -1, 0], P: [0, 1, 0], H: [0, 0, 1], F: [0, 0, -1] })
      .map(([text, way]) => ({ text, place: way.map((w) => 0.78 * w * scene.radius), side: true })),
    ...scene.labels,
  ];
  for (const mark of marks) {
    mark.element = words.appendChild(document.createElement("span"));
    mark.element.textContent = mark.text;
    if (mark.side) mark.element.className = "side";
  }

  function draw() {
    const wide = canvas.clientWidth, high = canvas.clientHeight, fine = window.devicePixelRatio || 1;
    canvas.width = wide * fine; canvas.height = high * fine;
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(1, 1, 1, 1);
    gl.depthMask(true); // else the depths of the picture before stay, and hide the same parts of this one
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    const rows = turn(), unit = zoom / (0.85 * scene.radius), less = Math.min(wide, high);
    const scale = [unit * less / wide, unit * less / high, 0.3 / scene.radius];
    gl.uniformMatrix3fv(turnAt, false, [0, 1, 2].flatMap((column) => rows.map((row) => row[column])));
    gl.uniform3fv(scaleAt, scale);
    gl.enable(gl.DEPTH_TEST);
    const one = (part, alpha) => {
      gl.uniform4fv(colourAt, [...part.rgb.map((c) => c / 255), alpha]);
      gl.uniform1f(stripedAt, part.striped ? 1 : 0);
      gl.uniform3fv(awayAt, part.moves ? scene.away.map((c) => c * apart) : [0, 0, 0]);
      gl.bindBuffer(gl.ARRAY_BUFFER, part.place); gl.vertexAttribPointer(placeAt, 3, gl.FLOAT, false, 0, 0);
      gl.bindBuffer(gl.ARRAY_BUFFER, part.normal); gl.vertexAttribPointer(normalAt, 3, gl.FLOAT, false, 0, 0);
      gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, part.corner);
      gl.drawElements(gl.TRIANGLES, part.count, part.wide ? gl.UNSIGNED_INT : gl.UNSIGNED_SHORT, 0);
    };
    const shown = scene.parts.filter((part) => part.shown);
    gl.disable(gl.BLEND); gl.disable(gl.CULL_FACE); gl.depthMask(true);
    shown.filter((part) => part.alpha === 1).forEach((part) => one(part, 1));
    gl.enable(gl.BLEND); gl.blendFunc(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA); gl.enable(gl.CULL_FACE); gl.depthMask(false);
    for (const face of [gl.FRONT, gl.BACK]) { // the far sides first
      gl.cullFace(face);
      shown.filter((part) => part.alpha < 1).forEach((part) => one(part, part.alpha));
    }
    for (const mark of marks) {
      const moved = mark.moves ? mark.place.map((c, i) => c + scene.away[i] * apart) : mark.place;
      const [x, y, near] = onScreen(rows, moved);
      mark.element.style.left = (50 + 50 * x * scale[0]) + "%";
      mark.element.style.top = (50 - 50 * y * scale[1]) + "%";
      mark.element.style.opacity = mark.side && Math.abs(near) > 0.6 * scene.radius ? 0 : 1;
      if (mark.part) mark.element.hidden = !scene.parts.find((part) => part.name === mark.part).shown;
    }
  }

  const tools = figure.querySelector(".tools");
  for (const part of scene.parts) {
    const label = tools.appendChild(document.createElement("label")), box = document.createElement("input");
    box.type = "checkbox"; box.checked = part.shown;
    box.onchange = () => { part.shown = box.checked; draw(); };
    const swatch = document.createElement("i");
    swatch.style.background = (part.striped ? "repeating-linear-gradient(45deg, #0008 0 2px, transparent 2px 6px), " : "") + "rgb(" + part.rgb + ")";
    label.append(box, swatch, part.title);
  }
  const ways = { front: [0, 0], right: [Math.PI / 2, 0], back: [Math.PI, 0], left: [-Math.PI / 2, 0], feet: [0, -Math.PI / 2] };
  for (const [name, way] of Object.entries(ways)) {
    const button = tools.appendChild(document.createElement("button"));
    button.type = "button"; button.textContent = "from the " + name;
    button.onclick = () => { [yaw, pitch] = way; draw(); };
  }
  const slide = tools.appendChild(document.createElement("label")), range = document.createElement("input");
  Object.assign(range, { type: "range", min: 0, max: 1, step: 0.02, value: 0 });
  range.oninput = () => { apart = Number(range.value); draw(); };
  slide.append("take the resection away", range);

  canvas.onpointerdown = (event) => canvas.setPointerCapture(event.pointerId);
  canvas.onpointermove = (event) => {
    if (!event.buttons) return;
    yaw += event.movementX / 120;
    pitch = Math.max(-Math.PI / 2, Math.min(Math.PI / 2, pitch - event.movementY / 120));
    draw();
  };
  const closer = (by) => { zoom = Math.max(0.5, Math.min(6, zoom * by)); draw(); };
  canvas.addEventListener("wheel", (event) => { event.preventDefault(); closer(Math.exp(-event.deltaY / 600)); }, { passive: false });
  canvas.onkeydown = (event) => {
    const step = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] }[event.key];
    if (step) { yaw += step[0]; pitch = Math.max(-Math.PI / 2, Math.min(Math.PI / 2, pitch + step[1])); draw(); }
    else if (event.key === "+") closer(1.1);
    else if (event.key === "-") closer(1 / 1.1);
    else return;
    event.preventDefault();
  };
  new ResizeObserver(draw).observe(canvas);
  draw();
})();
