import { render } from "preact";
import { App } from "./app";
import { listen } from "./router";
import "./style.css";
import "./theme";
import { look } from "./session";

listen();
void look();
const root = document.getElementById("app");
if (root) render(<App />, root);
